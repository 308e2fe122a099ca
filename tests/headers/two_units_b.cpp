// The other unit: two_units_a.cpp says what for.
#include "seshat/seshat.hpp"

int unit_b() { return 0; }
