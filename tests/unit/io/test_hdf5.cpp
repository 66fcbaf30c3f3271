#include <sys/mount.h>

#include <array>
#include <filesystem>
#include <numeric>

#include "catch.hpp"
#include "io/hdf5.hpp"
#include "unit/io/checkpoint_fixture.hpp"

using namespace hearth;
using fixture::message_of;

TEST_CASE("datasets, groups and attributes come back") {
  const fixture::TemporaryFolder folder;
  const std::string path = folder / "file.h5";
  std::vector<double> values(60);
  std::iota(values.begin(), values.end(), 0.5);
  {
    hdf5::File file = hdf5::File::create(path);
    file.create_dataset<double>("/z/deep/cube", {3, 4, 5}).write(values.data());
    file.create_dataset<std::int32_t>("/z/deep/none", {0, 4}, hdf5::Storage::compressed);
    file.create_dataset<float>("/a", {2});
    file.create_text_dataset("/names", {3}).write_texts({"one", "", "größe"});
    file.dataset("/z/deep/cube").set_axes({"x", "y", "z"});
    file.set_text("/", "fixed", "größe", hdf5::TextStorage::fixed);
    file.set_text("/z", "variable", "", hdf5::TextStorage::variable);
    file.set_number("/a", "integer", std::int64_t{-5});
    file.set_numbers("/a", "list", std::vector<double>{1, 2.5});
    file.close();
  }
  const hdf5::File file = hdf5::File::open(path);
  CHECK(file.datasets("/") ==
        std::vector<std::string>{"/a", "/names", "/z/deep/cube", "/z/deep/none"});
  CHECK(file.datasets("/nothing/there").empty());
  CHECK(file.has("/z/deep"));
  CHECK_FALSE(file.has("/z/shallow/cube"));
  const hdf5::Dataset cube = file.dataset("/z/deep/cube");
  CHECK(cube.dims() == std::vector<Index>{3, 4, 5});
  CHECK(cube.axes() == std::vector<std::string>{"x", "y", "z"});
  CHECK(cube.holds<double>());
  CHECK_FALSE(cube.holds<float>());
  std::vector<double> read(60);
  cube.read(read.data());
  CHECK(read == values);
  CHECK(fixture::read_bytes(path).substr(static_cast<std::size_t>(cube.file_offset()), 480) ==
        std::string(reinterpret_cast<const char*>(values.data()), 480));
  CHECK(file.dataset("/z/deep/none").dims() == std::vector<Index>{0, 4});
  CHECK(file.dataset("/names").read_texts() == std::vector<std::string>{"one", "", "größe"});
  CHECK(file.get_text("/", "fixed") == "größe");
  CHECK(file.get_text("/z", "variable").empty());
  CHECK(file.get_number<std::int64_t>("/a", "integer") == -5);
  CHECK(file.get_numbers<double>("/a", "list") == std::vector<double>{1, 2.5});
  CHECK_FALSE(file.has_attribute("/a", "other"));
}

TEST_CASE("HDF5's errors become one line") {
  const fixture::TemporaryFolder folder;
  int status = 0;
  const std::string missing = folder / "missing.h5";
  CHECK(message_of([&] { (void)hdf5::File::open(missing); }, &status) ==
        missing + ": unable to open file: No such file or directory");
  CHECK(status == 2);
  const std::string nowhere = "/proc/hearth.h5";
  CHECK(message_of([&] { hdf5::File::create(nowhere).close(); }, &status).find(nowhere + ": ") ==
        0);
  CHECK(status == 1);
  const std::string text_file = folder / "text.h5";
  fixture::write_bytes(text_file, "not HDF5 at all");
  CHECK(message_of([&] { (void)hdf5::File::open(text_file); }) ==
        text_file + ": unable to open file: file signature not found");

  const std::string path = folder / "file.h5";
  hdf5::File file = hdf5::File::create(path);
  file.create_dataset<float>("/a", {2});
  for (const auto& message : {message_of([&] { (void)file.dataset("/b"); }),
                              message_of([&] { (void)file.get_number<double>("/a", "absent"); }),
                              message_of([&] { file.create_dataset<float>("/a", {3}); })}) {
    INFO(message);
    CHECK(message.find(path + ": /") == 0);
    CHECK(message.find('\n') == std::string::npos);
  }
}

TEST_CASE("a dataset in chunks has no place of its own") {
  const fixture::TemporaryFolder folder;
  const std::string path = folder / "file.h5";
  {
    hdf5::File file = hdf5::File::create(path);
    file.create_dataset<float>("/a", {2}, hdf5::Storage::compressed)
        .write(std::array{1.0F, 2.0F}.data());
    file.close();
  }
  const hdf5::File file = hdf5::File::open(path);
  int status = 0;
  CHECK(
      message_of([&] { (void)file.dataset("/a").file_offset(); }, &status) ==
      path +
          ": /a: does not lie in one stretch of the file; h5repack -l CONTI makes a file where it "
          "does");
  CHECK(status == 2);
}

TEST_CASE("a full disk is an error like others") {
  const fixture::TemporaryFolder folder;
  const std::string disk = folder / "disk";
  std::filesystem::create_directory(disk);
  if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=128k") != 0) {
    WARN("not checked: may not mount a small disk here");
    return;
  }
  const std::vector<double> values(100000);
  for (const bool compressed : {false, true}) {
    for (const Index elements : {100000, 12000}) {
      for (int attempt = 0; attempt < 2; ++attempt) {
        const std::string message = message_of([&] {
          hdf5::File file = hdf5::File::create(disk + "/file.h5");
          std::string name;
          for (int i = 0; i < 20; ++i) {  // metadata and values in turn
            name = text("/group_", i, "/values");
            file.create_dataset<double>(
                name, {elements},
                compressed ? hdf5::Storage::compressed : hdf5::Storage::contiguous);
            file.set_text(name, "long", std::string(20000, 'x'), hdf5::TextStorage::variable);
            if (i > 0) file.dataset(name).write(values.data());
          }
          file.close();
        });
        INFO(message);
        CHECK(message.find(disk + "/file.h5: ") == 0);
        CHECK(message.find("No space left on device") != std::string::npos);
        CHECK(message.find('\n') == std::string::npos);
      }
    }
  }
  ::umount(disk.c_str());
}
