# One library target per layer; what a layer may include follows from what it links.

# Not asked for: missing field initialisers, since trailing defaults are what they are for, and
# -Wrestrict, which GCC 12 raises wrongly inside std::string.
add_library(hearth_warnings INTERFACE)
target_compile_options(hearth_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow
  -Wnon-virtual-dtor -Wno-missing-field-initializers -Wno-restrict>)
if(DEFINED ENV{CI})
  target_compile_options(hearth_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()

# sqrt() need not set errno: without this GCC does not vectorise it. It changes no value.
add_library(hearth_arithmetic INTERFACE)
target_compile_options(hearth_arithmetic INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fno-math-errno>)

# With CUDA, sources are device code: nvcc compiles them.
function(hearth_device_language)
  if(HEARTH_CUDA)
    set_source_files_properties(${ARGN} PROPERTIES LANGUAGE CUDA)
  endif()
endfunction()

# hearth_layer(NAME [HOST_ONLY] SOURCE folder LINK targets...): every .cpp in the folder and below
# it. HOST_ONLY: no device code.
function(hearth_layer name)
  cmake_parse_arguments(layer "HOST_ONLY" "SOURCE" "LINK" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${layer_SOURCE}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "${HEARTH_EXCLUDED_SOURCES}")
  if(NOT layer_HOST_ONLY)
    hearth_device_language(${sources})
  endif()
  add_library(hearth_${name} STATIC ${sources})
  target_include_directories(hearth_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR})
  target_link_libraries(hearth_${name} PUBLIC ${layer_LINK} PRIVATE hearth_warnings hearth_arithmetic)
endfunction()
