#include <cstdio>

#include "base/version.hpp"

int main() { std::printf("hearth %s (%s)\n", hearth::version, hearth::revision); }
