// The simulator as a program; scripts/sim runs it. `sim --help` says how.
#include "sim/driver/driver.hpp"

int main(int argc, char** argv) { return seshat::sim::drive({argv + 1, argv + argc}); }
