// A file is whole or absent: success, failure of the writer, targets that cannot be, links, a full disk.
#include "host/files/atomic_file.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "einfield/error.hpp"
#include "tests/temporary_directory.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;

class AtomicFile : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return directory_ / name; }
  std::string contents(const std::string& name) const { return directory_.read(name); }
  std::size_t n_files() const { return directory_.n_files(); }
  /// The message of the IoError that a write ends with.
  static std::string failure(const std::string& file) {
    try {
      write_atomically(file, std::string("new"));
    } catch (const IoError& error) {
      return error.what();
    }
    return "no IoError";
  }

  TemporaryDirectory directory_;
};

TEST_F(AtomicFile, WritesAllBytesAndNothingElse) {
  const std::string bytes("a\0b\xff\n", 5);
  write_atomically(path("x"), bytes);
  EXPECT_EQ(contents("x"), bytes);
  EXPECT_EQ(n_files(), 1u);
  write_atomically(path("x"), std::string());
  EXPECT_EQ(contents("x"), "");
  EXPECT_EQ(n_files(), 1u);
}

TEST_F(AtomicFile, HasThePermissionsOfANewFile) {
  const mode_t mask = umask(022);
  write_atomically(path("x"), std::string("y"));
  umask(mask);
  struct stat status {};
  ASSERT_EQ(stat(path("x").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777u, 0644u);
}

TEST_F(AtomicFile, KeepsTheOldFileWhenTheWriterFails) {
  write_atomically(path("x"), std::string("old"));
  const auto writer = [](const std::string& temporary) {
    std::ofstream(temporary) << "half";
    throw InvalidInput("on purpose");
  };
  EXPECT_THROW(write_atomically(path("x"), writer), InvalidInput);
  EXPECT_THROW(write_atomically(path("absent"), writer), InvalidInput);
  EXPECT_EQ(contents("x"), "old");
  EXPECT_EQ(n_files(), 1u);
}

TEST_F(AtomicFile, IsInvisibleUntilItIsWhole) {
  write_atomically(path("x"), [&](const std::string& temporary) {
    EXPECT_EQ(fs::path(temporary).parent_path(), directory_.path());
    EXPECT_FALSE(fs::exists(path("x")));
    std::ofstream(temporary) << "whole";
    EXPECT_FALSE(fs::exists(path("x")));
  });
  EXPECT_EQ(contents("x"), "whole");
}

TEST_F(AtomicFile, ATemporaryFileThatVanishedIsAnError) {
  EXPECT_THROW(write_atomically(path("x"), [](const std::string& temporary) { fs::remove(temporary); }), IoError);
  EXPECT_EQ(n_files(), 0u);
}

TEST_F(AtomicFile, NamesPathAndReason) {
  EXPECT_EQ(failure(path("absent/x")), path("absent/x") + ": cannot write (No such file or directory)");
  fs::create_directory(path("folder"));
  EXPECT_EQ(failure(path("folder")), path("folder") + ": cannot write (Is a directory)");
  EXPECT_EQ(failure(path("folder/") + std::string(300, 'n')),
            path("folder/") + std::string(300, 'n') + ": cannot rename to it (File name too long)");
  EXPECT_TRUE(fs::is_empty(path("folder")));
}

TEST_F(AtomicFile, NeverReplacesAPipeOrADevice) {
  ASSERT_EQ(mkfifo(path("pipe").c_str(), 0600), 0);
  EXPECT_EQ(failure(path("pipe")), path("pipe") + ": cannot write (not a regular file)");
}

TEST_F(AtomicFile, FollowsALink) {
  fs::create_directory(path("elsewhere"));
  write_atomically(path("elsewhere/real"), std::string("old"));
  fs::create_symlink("elsewhere/real", path("link"));
  write_atomically(path("link"), std::string("new"));
  EXPECT_TRUE(fs::is_symlink(path("link")));
  EXPECT_EQ(contents("elsewhere/real"), "new");
  fs::create_symlink("nowhere", path("dangling"));
  EXPECT_EQ(failure(path("dangling")), path("dangling") + ": cannot follow the link (No such file or directory)");
}

TEST_F(AtomicFile, WhatKilledProcessesLeaveCanBeRemoved) {
  const pid_t gone = fork();
  if (gone == 0) _exit(0);
  waitpid(gone, nullptr, 0);
  const std::string abandoned = ".einfield-" + std::to_string(gone) + "-0.tmp";
  const std::string ours = ".einfield-" + std::to_string(getpid()) + "-999.tmp";
  for (const std::string& name :
       {abandoned, ours, std::string(".einfield-x.tmp"), abandoned + ".txt", std::string("x.tmp")})
    directory_.write(name, "");
  remove_abandoned_temporaries(directory_.path().string());
  EXPECT_FALSE(fs::exists(path(abandoned)));
  EXPECT_EQ(n_files(), 4u);
  EXPECT_NO_THROW(remove_abandoned_temporaries(path("absent")));
}

TEST_F(AtomicFile, WithoutADirectoryIsTheWorkingDirectory) {
  const fs::path before = fs::current_path();
  fs::current_path(directory_.path());
  write_atomically("plain", std::string("here"));
  fs::current_path(before);
  EXPECT_EQ(contents("plain"), "here");
}

TEST_F(AtomicFile, SaysWhenThereIsNoMoreSpace) {
  write_atomically(path("x"), std::string("old"));
  // A limit on the size of files stands for the full disk; in a process of its own, because it cannot be taken back.
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1000, 1000};
    setrlimit(RLIMIT_FSIZE, &limit);
    std::string message;
    try {
      write_atomically(path("x"), std::string(5000, 'x'));
    } catch (const IoError& error) {
      message = error.what();
    }
    _exit(message == path("x") + ": cannot write (File too large)" ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_EQ(contents("x"), "old");
  EXPECT_EQ(n_files(), 1u);
}

TEST_F(AtomicFile, AnUnwritableDirectoryIsAnError) {
  if (geteuid() == 0) GTEST_SKIP() << "root may write everywhere";
  fs::permissions(directory_.path(), fs::perms::owner_read | fs::perms::owner_exec);
  EXPECT_EQ(failure(path("x")), path("x") + ": cannot write (Permission denied)");
  fs::permissions(directory_.path(), fs::perms::owner_all);
}

}  // namespace
}  // namespace einfield
