# The router of docs/adding_a_router.md, as the page has it: its file and its line of the table are
# taken from the page, and the program and the test of gradients are linked anew with them.

set(example ${CMAKE_CURRENT_BINARY_DIR}/example_router)
set(page ${PROJECT_SOURCE_DIR}/docs/adding_a_router.md)
set(table ${PROJECT_SOURCE_DIR}/src/config/routers.def)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${page} ${table})

# What stands in the page's first two blocks of C++.
file(READ ${page} text)
foreach(block line source)
  string(FIND "${text}" "```cpp\n" begin)
  if(begin EQUAL -1)
    message(FATAL_ERROR "${page}: expected two blocks of C++, the router's line and its file")
  endif()
  math(EXPR begin "${begin} + 7")
  string(SUBSTRING "${text}" ${begin} -1 text)
  string(FIND "${text}" "```" end)
  string(SUBSTRING "${text}" 0 ${end} example_${block})
endforeach()
file(READ ${table} example_table)
# Only where it has changed, so that nothing is compiled without need.
file(CONFIGURE OUTPUT ${example}/config/routers.def CONTENT "@example_table@@example_line@" @ONLY)
file(CONFIGURE OUTPUT ${example}/second_within.cpp CONTENT "@example_source@" @ONLY)

# Whatever reads the table is compiled with the longer one; the rest comes from the layers.
set(example_sources ${example}/second_within.cpp ${PROJECT_SOURCE_DIR}/src/config/options.cpp
  ${PROJECT_SOURCE_DIR}/src/model/routers/router_table.cpp)
add_library(hearth_example_router OBJECT ${example_sources})
hearth_device_language(${example}/second_within.cpp
  ${PROJECT_SOURCE_DIR}/src/model/routers/router_table.cpp)
target_include_directories(hearth_example_router BEFORE PUBLIC ${example})
target_link_libraries(hearth_example_router PUBLIC hearth_model PRIVATE hearth_warnings)

add_executable(hearth_with_example $<TARGET_OBJECTS:hearth>)
target_link_libraries(hearth_with_example PRIVATE hearth_example_router hearth_io hearth_train)
# It has no source of its own that would tell.
if(HEARTH_CUDA)
  set_target_properties(hearth_with_example PROPERTIES LINKER_LANGUAGE CUDA)
else()
  set_target_properties(hearth_with_example PROPERTIES LINKER_LANGUAGE CXX)
endif()

add_executable(test_example_router unit/train/test_gradient_order.cpp)
target_link_libraries(test_example_router PRIVATE hearth_test_main hearth_example_router hearth_train
  hearth_warnings)
add_test(NAME example.gradient COMMAND test_example_router -c "router second_within")
# A section that is not there passes, without assertions.
set_tests_properties(example.gradient PROPERTIES LABELS unit ENVIRONMENT "${HEARTH_TEST_ENVIRONMENT}"
  PASS_REGULAR_EXPRESSION "All tests passed \\([1-9]")
