// Two translation units that include everything: they link only if all that headers define is inline.
#include "seshat/seshat.hpp"

int unit_b();

int main() { return unit_b(); }
