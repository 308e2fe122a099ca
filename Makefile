# Seshat. `make help` lists the targets; everything that is built goes under build/.
#
#   make TLS=no             without OpenSSL, and so without TLS for clients
#   make CXX=clang++        another compiler (g++ 12 or clang 14 and newer); objects in build/clang
#   make VARIANT=asan all   a daemon with the sanitizers of `make asan`; also tsan
#   make test-raft          build and run tests/raft_test.cpp alone
#   make tidy-raft          clang-tidy over include/seshat/raft.hpp alone
#   make test TEST='[raft]' a Catch2 test specification for the runs of `test` and `cluster-test`
#
# CXXFLAGS, CPPFLAGS, LDFLAGS and LDLIBS are yours: they come after the flags chosen here, and a change
# of any flag or of the compiler rebuilds what it touches.

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := all

# Parallel unless told otherwise: a -j on the command line or in MAKEFLAGS wins.
ifeq ($(MAKELEVEL),0)
ifeq ($(findstring j,$(firstword $(filter -j% j%,$(shell echo "$${MAKEFLAGS:-}")))),)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
endif
endif
MAKEFLAGS += --no-print-directory --no-builtin-rules

PREFIX   ?= /usr/local
DESTDIR  ?=
NODES    ?= 3
TEST     ?=
FUZZ     ?=
FUZZ_SECONDS ?= 60
ARGS     ?=
VARIANT  ?= release
WERROR   ?=

PYTHON       ?= $(firstword $(wildcard /usr/bin/python3) python3)
CLANGXX      ?= $(shell command -v clang++ || true)
CLANG_FORMAT ?= clang-format
CLANG_TIDY   ?= clang-tidy
PKG_CONFIG   ?= pkg-config

# ---- Sources -------------------------------------------------------------------------------------

HEADERS       := $(sort $(wildcard include/seshat/*.hpp))
COPYABLE      := $(filter $(HEADERS),$(patsubst %,include/seshat/%.hpp,resp raft slots glob log result version wire))
DAEMON_SRCS   := $(sort $(wildcard src/*.cpp))
UNIT_SRCS     := $(sort $(wildcard tests/*_test.cpp))
SIM_SRCS      := $(sort $(wildcard tests/sim/*.cpp))
SIM_DRIVER    := $(wildcard tests/sim/driver/main.cpp)
FUZZ_SRCS     := $(sort $(wildcard tests/fuzz/*.cpp))
FUZZ_DRIVER   := $(wildcard tests/fuzz/driver/main.cpp)
CLUSTER_SRCS  := $(sort $(wildcard tests/cluster/*.cpp))
BENCH_SRCS    := $(sort $(wildcard tests/bench/*.cpp))
BUDGET_SRCS   := $(sort $(wildcard tests/budget/*.cpp))
MICRO_SRCS    := $(sort $(wildcard tests/micro/*.cpp))
SHIM_SRCS     := $(sort $(wildcard tests/cluster/*_shim.c))
UMBRELLA      := $(wildcard include/seshat/seshat.hpp)
UNITS_SRCS    := $(if $(UMBRELLA),$(sort $(wildcard tests/headers/two_units_*.cpp)))
CATCH_MAIN    := $(wildcard tests/main.cpp)
CXX_SRCS      := $(DAEMON_SRCS) $(CATCH_MAIN) $(UNIT_SRCS) $(SIM_SRCS) $(SIM_DRIVER) $(FUZZ_SRCS) \
                   $(FUZZ_DRIVER) $(CLUSTER_SRCS) $(BENCH_SRCS) $(BUDGET_SRCS) $(MICRO_SRCS) \
                   $(UNITS_SRCS)
PROTOS        := $(wildcard proto/*.proto)
FORMAT_SRCS   := $(HEADERS) $(sort $(wildcard src/*.cpp tests/*.cpp tests/*.hpp tests/*/*.cpp \
                   tests/*/*.hpp tests/*/*.c tests/*/*/*.cpp tests/*/*/*.hpp))

# ---- Flags ---------------------------------------------------------------------------------------

CXX_VERSION := $(shell $(CXX) --version 2>/dev/null | head -n 1)
CLANG := $(findstring clang,$(CXX_VERSION))
B     := build/$(if $(CLANG),$(patsubst release-clang,clang,$(VARIANT)-clang),$(VARIANT))
GEN   := build/gen

FLAGS_release := -O2 -g1
# Sanitizers confuse g++ 12's -Wmaybe-uninitialized; the release build keeps it.
SANITIZED     := -O1 -g1 -fno-omit-frame-pointer -Wno-maybe-uninitialized
FLAGS_asan    := $(SANITIZED) -fsanitize=address,undefined -fno-sanitize-recover=all
FLAGS_tsan    := $(SANITIZED) -fsanitize=thread
# toml++ is compiled in, so that libFuzzer sees where its branches lead; asan does without that.
FLAGS_fuzz    := -O1 -g1 -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
                   -fno-sanitize-recover=all -UTOML_SHARED_LIB -UTOML_HEADER_ONLY -DTOML_HEADER_ONLY=1
ifeq ($(FLAGS_$(VARIANT)),)
$(error no such variant: VARIANT=$(VARIANT); there are release, asan, tsan and, by clang, fuzz)
endif

# What pkg-config says takes it a second (gRPC needs 100 libraries), so it is kept in a file. Targets that
# build nothing themselves do without: `make deps` must work before pkg-config is there.
PACKAGES  := rocksdb grpc++ tomlplusplus
NO_BUILD  := help deps run cluster bench bench-scale check lint lint-format lint-floors asan tsan fuzz format uninstall clean
ifneq ($(filter-out $(NO_BUILD),$(or $(MAKECMDGOALS),all)),)
include build/packages.mk
endif
build/packages.mk: Makefile $(wildcard $(foreach p,$(PACKAGES) openssl,/usr/lib*/pkgconfig/$p.pc \
                     /usr/lib/*/pkgconfig/$p.pc /usr/local/lib/pkgconfig/$p.pc))
	@mkdir -p $(@D)
	@for p in $(PACKAGES); do $(PKG_CONFIG) --exists $$p 2>/dev/null || { \
	  echo "$$p is not known to $(PKG_CONFIG): run \`make deps\`" >&2; exit 1; }; done
	@{ echo "PKG_CFLAGS := $$($(PKG_CONFIG) --cflags $(PACKAGES))"; \
	  echo "PKG_LIBS := $$($(PKG_CONFIG) --libs $(PACKAGES))"; \
	  echo "OPENSSL_CFLAGS := $$($(PKG_CONFIG) --cflags 'openssl >= 1.1.1' 2>/dev/null || true)"; \
	  echo "OPENSSL_LIBS := $$($(PKG_CONFIG) --libs 'openssl >= 1.1.1' 2>/dev/null || true)"; \
	  echo "CATCH_LIBS := $$($(PKG_CONFIG) --libs catch2 2>/dev/null || true)"; } > $@

# TLS for clients is there where OpenSSL is.
TLS ?= $(if $(OPENSSL_LIBS),yes,no)

# Elsewhere than on Debian, nanopb's headers have a folder of their own.
NANOPB_CFLAGS ?= $(addprefix -isystem ,$(wildcard /usr/include/nanopb /usr/local/include/nanopb \
                   /opt/homebrew/include/nanopb))
NANOPB_LIBS   ?= -lprotobuf-nanopb
NANOPB        ?= $(shell command -v nanopb_generator.py || command -v nanopb_generator || true)

WARNINGS   := -Wall -Wextra -Wpedantic
DEFINES    := -DASIO_STANDALONE -DASIO_NO_DEPRECATED $(if $(filter yes,$(TLS)),-DSESHAT_WITH_TLS)
INCLUDES    = -Iinclude -I$(GEN) $(patsubst -I%,-isystem %,$(PKG_CFLAGS) $(OPENSSL_CFLAGS)) \
                $(NANOPB_CFLAGS)
CXX_COMMON  = -std=c++20 $(WARNINGS) $(DEFINES) $(INCLUDES) -Itests
CXX_FLAGS   = $(CXX_COMMON) $(FLAGS_$(VARIANT)) -pthread $(CPPFLAGS) $(CXXFLAGS)
C_FLAGS     = -x c -std=c11 $(INCLUDES) $(FLAGS_$(VARIANT)) $(CPPFLAGS) $(CFLAGS)
LINK_LIBS   = $(NANOPB_LIBS) $(PKG_LIBS) $(if $(filter yes,$(TLS)),$(OPENSSL_LIBS)) -pthread $(LDLIBS)
# Diagnostics pass through a file, so colour has to be asked for; it is no part of the flags' stamp.
COLOUR     := $(if $(MAKE_TERMERR),-fdiagnostics-color=always)

objects  = $(patsubst %,$(B)/%.o,$(basename $(1)))
PB_HDRS := $(patsubst proto/%.proto,$(GEN)/%.pb.h,$(PROTOS))
PB_OBJS := $(patsubst proto/%.proto,$(B)/gen/%.pb.o,$(PROTOS))
MAIN_O  := $(call objects,$(CATCH_MAIN))
SHIMS   := $(patsubst tests/cluster/%.c,$(B)/%.so,$(SHIM_SRCS))

UNIT_BIN    := $(if $(UNIT_SRCS),$(B)/unit_tests)
SIM_BIN     := $(if $(SIM_SRCS),$(B)/sim_tests)
CLUSTER_BIN := $(if $(CLUSTER_SRCS),$(B)/cluster_tests)
UNITS_BIN   := $(if $(UNITS_SRCS),$(B)/two_units)
BUDGET_BIN  := $(if $(BUDGET_SRCS),$(B)/budget)
MICRO_BIN   := $(if $(MICRO_SRCS),$(B)/micro)
DAEMON      := $(if $(DAEMON_SRCS),$(B)/seshat)
TEST_BINS   := $(UNIT_BIN) $(SIM_BIN) $(CLUSTER_BIN) $(UNITS_BIN) $(BUDGET_BIN) $(MICRO_BIN)

# ---- Building ------------------------------------------------------------------------------------

.PHONY: all deps run cluster
all: $(DAEMON) ## build ./seshat (the default)
	@$(if $(DAEMON),[ $(DAEMON) -ef seshat ] || ln -f $(DAEMON) seshat,echo "no src/ yet: nothing to build")

deps: ## install what is missing (Debian, Ubuntu); elsewhere print what to install
	@scripts/deps.sh

run: ## install what is missing, build, and start one node on port 6379
	@scripts/deps.sh --build-only
	@$(MAKE) all
	@exec ./seshat $(ARGS)

cluster: ## the same for NODES=3 nodes on this machine; Ctrl-C stops them all
	@scripts/deps.sh --build-only
	@$(MAKE) all
	@exec scripts/cluster --nodes $(NODES) $(ARGS)

.PHONY: build-all
build-all: all $(TEST_BINS) $(SHIMS) ## build the daemon and every test program

# A warning in an object of an earlier build is kept beside it; -Werror compiles such an object again.
ifneq ($(WERROR),)
$(shell find $(B) -name '*.warn' -size +0 2>/dev/null | while read -r w; do rm -f "$$w" "$${w%.warn}.o"; done)
endif

FLAGS_ID = $(CXX) $(CXX_VERSION) | $(CXX_FLAGS) | $(C_FLAGS)
LINK_ID  = $(LDFLAGS) | $(LINK_LIBS) $(CATCH_LIBS)

define TOOLCHAIN_PROBE
#if defined(__clang__) ? __clang_major__ < 14 : __GNUC__ < 12
#error "Seshat needs g++ 12 or clang 14, or newer"
#endif
#if !__has_include(<asio.hpp>)
#error "asio is missing: run `make deps`"
#endif
#if !__has_include(<pb.h>)
#error "nanopb is missing: run `make deps`"
#endif
endef
export TOOLCHAIN_PROBE

# A stamp for each variant: everything is compiled again when the compiler or a flag changes.
.PHONY: FORCE
$(B)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(FLAGS_ID)' | cmp -s - $@ || { \
	  printf '%s\n' "$$TOOLCHAIN_PROBE" | $(CXX) $(CXX_FLAGS) -x c++ -fsyntax-only -; \
	  printf '%s\n' '$(FLAGS_ID)' > $@; }

$(B)/link-flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(LINK_ID)' | cmp -s - $@ || printf '%s\n' '$(LINK_ID)' > $@

# $(call compile,<what>): <what> with its diagnostics shown, and kept in a file beside the object.
compile = $(1) 2> $(@:.o=.warn) || { cat $(@:.o=.warn) >&2; exit 1; }; cat $(@:.o=.warn) >&2

$(B)/%.o: %.cpp $(B)/flags | $(PB_HDRS)
	@mkdir -p $(@D)
	@echo "  CXX   $@"
	@$(call compile,$(CXX) $(CXX_FLAGS) $(if $(WERROR),-Werror) $(COLOUR) -MMD -MP $(EXTRA) -c $< -o $@)
# Catch2's own code takes long to optimise and nobody waits for it.
$(MAIN_O): EXTRA := -O0

# nanopb's PB_BIND defines symbols: each generated file is compiled once, as its own C object.
$(B)/gen/%.o: $(GEN)/%.c $(B)/flags
	@mkdir -p $(@D)
	@echo "  CC    $@"
	@$(CXX) $(C_FLAGS) -MMD -MP -c $< -o $@

$(GEN)/%.pb.h $(GEN)/%.pb.c: proto/%.proto $(wildcard proto/*.options)
	@mkdir -p $(@D)
	@echo "  PROTO $<"
	@[ -n "$(NANOPB)" ] || { echo "nanopb_generator is missing: run \`make deps\`" >&2; exit 1; }
	@$(NANOPB) --quiet -I proto -D $(GEN) $<

$(B)/%_shim.so: tests/cluster/%_shim.c $(B)/flags
	@echo "  SHIM  $@"
	@$(CXX) -x c -std=gnu11 -O2 -fPIC -shared $< -o $@ -ldl

link = @echo "  LINK  $@"; $(CXX) $(FLAGS_$(VARIANT)) $(CXXFLAGS) $(LDFLAGS) $(filter %.o,$^) -o $@

$(B)/seshat: $(call objects,$(DAEMON_SRCS)) $(PB_OBJS) $(B)/link-flags
	$(link) $(LINK_LIBS)
$(B)/unit_tests: $(MAIN_O) $(call objects,$(UNIT_SRCS) $(FUZZ_SRCS)) $(PB_OBJS) $(B)/link-flags
	$(link) $(CATCH_LIBS) $(LINK_LIBS)
$(B)/sim_tests: $(MAIN_O) $(call objects,$(SIM_SRCS)) $(PB_OBJS) $(B)/link-flags
	$(link) $(CATCH_LIBS) $(LINK_LIBS)
# One program for random, replayed and shrunk runs; the fixed seeds of `make test` are tests/sim/*.cpp.
$(B)/sim: $(call objects,$(SIM_DRIVER)) $(PB_OBJS) $(B)/link-flags
	$(link) $(NANOPB_LIBS) -pthread $(LDLIBS)
$(B)/fuzz: $(call objects,$(filter %_target.cpp,$(FUZZ_SRCS)) $(FUZZ_DRIVER)) $(PB_OBJS) $(B)/link-flags
	$(link) -fsanitize=fuzzer $(LINK_LIBS)
$(B)/cluster_tests: $(MAIN_O) $(call objects,$(CLUSTER_SRCS)) $(PB_OBJS) $(B)/link-flags
	$(link) $(CATCH_LIBS) $(LINK_LIBS)
$(B)/bench_load: $(call objects,$(BENCH_SRCS)) $(B)/link-flags
	$(link) $(PKG_LIBS) -pthread $(LDLIBS)
# Without what debuggers know: callgrind needs names alone, and valgrind 3.19 can't read clang's DWARF 5.
$(B)/budget: $(call objects,$(BUDGET_SRCS)) $(PB_OBJS) $(B)/link-flags
	$(link) -Wl,-S $(NANOPB_LIBS) $(LDLIBS)
$(B)/micro: $(call objects,$(MICRO_SRCS)) $(PB_OBJS) $(B)/link-flags
	$(link) $(CATCH_LIBS) $(LINK_LIBS)
$(B)/two_units: $(call objects,$(UNITS_SRCS)) $(PB_OBJS) $(B)/link-flags
	$(link) $(LINK_LIBS)
$(B)/one/%_test: $(MAIN_O) $(B)/tests/%_test.o $(PB_OBJS) $(B)/link-flags
	@mkdir -p $(@D)
	$(link) $(CATCH_LIBS) $(LINK_LIBS)

-include $(patsubst %.o,%.d,$(call objects,$(CXX_SRCS)) $(PB_OBJS))
.SECONDARY:

# ---- Testing -------------------------------------------------------------------------------------

# The libraries that stand in for bad disks and clocks come before the sanitizer's own.
SAN_ENV_asan := ASAN_OPTIONS=detect_stack_use_after_return=1:verify_asan_link_order=0 UBSAN_OPTIONS=print_stacktrace=1
SAN_ENV_tsan := TSAN_OPTIONS=ignore_noninstrumented_modules=1:second_deadlock_stack=1:suppressions=$(CURDIR)/tests/tsan.supp
SAN_ENV      := $(SAN_ENV_$(VARIANT))
TEST_ARG      = $(if $(TEST),'$(TEST)')

.PHONY: test unit-test cluster-test clients-test redis-test header-test check asan tsan
test: header-test unit-test ## header tests, unit tests and the simulator

unit-test: $(UNIT_BIN) $(SIM_BIN)
	@rc=0; for t in $(UNIT_BIN) $(SIM_BIN); do \
	  echo "==> $$t"; $(SAN_ENV) $$t $(TEST_ARG) || rc=1; done; exit $$rc

test-%: $(B)/one/%_test
	@$(SAN_ENV) $< $(TEST_ARG)

CLUSTER_ENV = $(SAN_ENV) SESHAT_BIN=$(CURDIR)/$(DAEMON) SESHAT_SHIMS=$(CURDIR)/$(B)

cluster-test: $(DAEMON) $(CLUSTER_BIN) $(SHIMS) ## real processes: kill -9, partitions, slow disks
	@$(if $(CLUSTER_BIN),$(CLUSTER_ENV) $(CLUSTER_BIN) $(TEST_ARG),echo "no tests in tests/cluster")

.PHONY: chaos soak
chaos: $(DAEMON) $(CLUSTER_BIN) $(SHIMS) ## every fault on real processes, then at random, twice CHAOS_SECONDS=300
	@CHAOS_SECONDS=$${CHAOS_SECONDS:-300} $(CLUSTER_ENV) $(CLUSTER_BIN) $(or $(TEST_ARG),'[chaos]')

soak: $(DAEMON) $(CLUSTER_BIN) ## three nodes under load for SOAK_SECONDS=3600: nothing grows; build/soak.csv
	@SOAK_CSV=$${SOAK_CSV:-build/soak.csv} $(CLUSTER_ENV) $(CLUSTER_BIN) '[.soak]'

# SESHAT_BIN=FILE measures a daemon that was built elsewhere.
.PHONY: bench
bench: ## beside Redis and etcd, as far as they are installed: goals, build/bench/plot.svg; QUICK=1
	@scripts/deps.sh --build-only
	@$(MAKE) $(if $(SESHAT_BIN),,all) $(B)/bench_load
	@QUICK=$(QUICK) BENCH_LOAD=$(CURDIR)/$(B)/bench_load scripts/bench $(ARGS)

.PHONY: bench-scale
bench-scale: ## cost as keys, values, connections and nodes grow: build/bench/scale.svg; QUICK=1
	@scripts/deps.sh --build-only
	@$(MAKE) $(if $(SESHAT_BIN),,all) $(B)/bench_load
	@QUICK=$(QUICK) BENCH_LOAD=$(CURDIR)/$(B)/bench_load scripts/bench-scale $(ARGS)

# ARGS=--profile says where the instructions go, ARGS=--update takes what is counted now as the budget.
.PHONY: budget micro
budget: $(BUDGET_BIN) ## instructions and allocations a SET and a GET take: no more than 10 % above the budget
	@$(if $(BUDGET_BIN),BUDGET_BIN=$(CURDIR)/$(BUDGET_BIN) scripts/budget $(ARGS),echo "no tests in tests/budget")

micro: $(MICRO_BIN) ## how long the parts take, each for itself; TEST='[codec]' only those
	@$(if $(MICRO_BIN),$(MICRO_BIN) $(TEST_ARG) $(ARGS),echo "no benchmarks in tests/micro")

clients-test: all ## Redis' own tools and the common client libraries
	@if [ -x tests/clients/run ]; then SESHAT_BIN=$(CURDIR)/seshat PYTHON=$(PYTHON) tests/clients/run; \
	else echo "no tests in tests/clients"; fi

redis-test: all ## the same commands to Redis and to Seshat; ARGS='random --seed 7 --count 100000'
	@SESHAT_BIN=$(CURDIR)/seshat $(PYTHON) -B tests/redis/run $(ARGS)

.PHONY: sim sim-mutants
sim: $(B)/sim ## random simulated clusters for SIM_SECONDS=600
	@SIM_BIN=$(CURDIR)/$(B)/sim scripts/sim

sim-mutants: $(B)/sim ## plants deliberate bugs and shows that the simulator finds each
	@scripts/sim-mutants

# The objects of VARIANT=fuzz are in build/fuzz-clang; what the runs find and keep is in build/fuzz.
define FUZZ_PROBE
extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }
endef
export FUZZ_PROBE

.PHONY: fuzz fuzz-binary
fuzz: ## hostile bytes for FUZZ_SECONDS=60 at each parser, or at FUZZ=name alone
	@mkdir -p build/fuzz
	@printf '%s\n' "$$FUZZ_PROBE" | $(or $(CLANGXX),false) -fsanitize=fuzzer,address,undefined \
	  -x c++ - -o build/fuzz/probe 2>build/fuzz/probe.log || { \
	  echo "fuzzing needs clang with its libFuzzer (clang, libclang-rt-dev): run \`make deps\`" >&2; exit 1; }
	@$(MAKE) VARIANT=fuzz CXX=$(CLANGXX) fuzz-binary
	@FUZZ_BIN=build/fuzz-clang/fuzz FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/fuzz $(FUZZ)

fuzz-binary: $(B)/fuzz

asan: ## unit tests and simulator under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) VARIANT=asan unit-test

tsan: ## unit tests and simulator under ThreadSanitizer
	@$(MAKE) VARIANT=tsan unit-test

# Every header comes first, stands alone and may be included twice; those that are made to be copied
# compile in an empty folder with nothing but the standard library; two files that include everything link.
H        := build/headers/$(notdir $(CXX))
ALONE    := $(HEADERS:include/seshat/%.hpp=$(H)/%.ok)
COPIED   := $(COPYABLE:include/seshat/%.hpp=$(H)/copied/%.ok)
HEADER_N := $(words $(ALONE) $(COPIED) $(UNITS_BIN))

header-test: $(ALONE) $(COPIED) $(UNITS_BIN)
	@$(if $(UNITS_BIN),$(UNITS_BIN))
	@printf '%s\n' "==> header tests: first, alone and twice; by copy; two units that include everything" \
	  "$(HEADER_N) passed, 0 failed, 0 skipped"

$(H)/%.ok: include/seshat/%.hpp $(B)/flags | $(PB_HDRS)
	@mkdir -p $(@D)
	@echo "  ALONE $<"
	@printf '#include "seshat/%s"\n' $(<F) $(<F) > $(@:.ok=.cpp)
	@$(CXX) $(CXX_FLAGS) -Werror $(COLOUR) -fsyntax-only -MMD -MP -MF $(@:.ok=.d) -MT $@ $(@:.ok=.cpp)
	@touch $@

$(H)/copied/%.ok: include/seshat/%.hpp $(B)/flags
	@rm -rf $(@:.ok=) && mkdir -p $(@:.ok=) && cp $< $(@:.ok=)/
	@echo "  COPY  $<"
	@printf '#include "%s"\n' $(<F) $(<F) > $(@:.ok=)/copy.cpp
	@cd $(@:.ok=) && $(CXX) -std=c++20 $(WARNINGS) -Werror $(COLOUR) -fsyntax-only copy.cpp
	@touch $@

-include $(ALONE:.ok=.d)

# ---- Everything CI checks ------------------------------------------------------------------------

# Adds up what the runners in the given logs counted: Catch2's last lines, and lines of our own form.
define COUNT
FNR == 1 { p += own_p; f += own_f; s += own_s; own_p = own_f = own_s = 0 }
/^All tests passed \(/ { match($$0, /[0-9]+ test case/); p += substr($$0, RSTART) + 0 }
/^test cases:/ { sub(/^test cases:/, ""); n = split($$0, part, "|")
                 for (i = 2; i <= n; i++) { if (part[i] ~ /passed|as expected/) p += part[i]
                   else if (part[i] ~ /failed/) f += part[i]; else if (part[i] ~ /skipped/) s += part[i] } }
/^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$$/ { own_p = $$1; own_f = $$3; own_s = $$5 }
END { print p + own_p + 0, f + own_f + 0, s + own_s + 0 }
endef
export COUNT

CHECK_STAGES := deps build-all lint test budget cluster-test clients-test redis-test

# A stage that fails without a failed test case (a crash, a warning) counts as one failure. Later stages
# still run, so that one run tells everything; without a build there is nothing to run.
check: ## deps, build, lint and every test, with the time each took
	@rm -rf build/check; mkdir -p build/check; table=; extra=0; began=$$SECONDS; \
	for stage in $(CHECK_STAGES); do \
	  echo "==> make $$stage"; start=$$SECONDS; result=ok; log=build/check/$$stage.log; \
	  $(MAKE) -k $$stage 2>&1 | tee $$log || result=FAILED; \
	  table+=$$(printf '%-14s %5d s  %s' $$stage $$((SECONDS - start)) $$result)$$'\n'; \
	  if [ $$result = FAILED ]; then \
	    read -r _ failed _ < <(awk "$$COUNT" $$log); \
	    if [ $$failed = 0 ]; then extra=$$((extra + 1)); fi; \
	    case $$stage in deps | build-all) break ;; esac; \
	  fi; \
	done; \
	printf '\n%s%-14s %5d s\n\n' "$$table" together $$((SECONDS - began)); \
	read -r passed failed skipped < <(awk "$$COUNT" build/check/*.log); failed=$$((failed + extra)); \
	echo "$$passed passed, $$failed failed, $$skipped skipped" | tee build/check/total; \
	[ $$failed = 0 ]

# ---- Lint and format -----------------------------------------------------------------------------

CLANG_OK := $(if $(CLANGXX),$(patsubst %.cpp,build/lint/clang/%.ok,$(CXX_SRCS)))
TIDY_OK  := $(patsubst %.cpp,build/lint/tidy/%.ok,$(DAEMON_SRCS))

.PHONY: lint prepare lint-format lint-floors lint-werror lint-clang lint-tidy lint-headers format
lint: ## format, floors, clang-tidy, and a build without one warning by g++ and clang
	@$(MAKE) prepare
	@$(MAKE) -k lint-format lint-floors lint-werror lint-clang lint-tidy lint-headers
	@echo "lint: clean"

# What several makes beside each other would otherwise make at the same time.
prepare: $(PB_HDRS) $(B)/flags

lint-format:
	@$(CLANG_FORMAT) --dry-run -Werror --style=file $(FORMAT_SRCS)

lint-floors:
	@$(PYTHON) scripts/check-floors --self-test
	@$(PYTHON) scripts/check-floors
	@$(PYTHON) scripts/check-testing

lint-werror:
	@$(MAKE) WERROR=1 objects

.PHONY: objects
objects: $(call objects,$(CXX_SRCS))

lint-clang: $(CLANG_OK)
lint-tidy: $(TIDY_OK)
lint-headers: $(ALONE) $(COPIED)

tidy = $(CLANG_TIDY) --quiet $(1) -- -x c++ $(CXX_COMMON) 2> >(grep -v 'warnings generated' >&2)

build/lint/clang/%.ok: %.cpp $(B)/flags | $(PB_HDRS)
	@mkdir -p $(@D)
	@echo "  CLANG $<"
	@$(CLANGXX) $(CXX_COMMON) -Werror $(COLOUR) -fsyntax-only -MMD -MP -MF $(@:.ok=.d) -MT $@ $<
	@touch $@

build/lint/tidy/%.ok: %.cpp .clang-tidy $(B)/flags | $(PB_HDRS)
	@mkdir -p $(@D)
	@echo "  TIDY  $<"
	@$(CXX) $(CXX_COMMON) -MM -MP -MF $(@:.ok=.d) -MT $@ $<
	@$(call tidy,$<)
	@touch $@

# One header alone: make tidy-raft
tidy-%: include/seshat/%.hpp $(B)/flags | $(PB_HDRS)
	@$(call tidy,$<)

-include $(CLANG_OK:.ok=.d) $(TIDY_OK:.ok=.d)

format: ## let clang-format rewrite all sources
	@$(CLANG_FORMAT) -i --style=file $(FORMAT_SRCS)

# For editors and other clang tools.
compile_commands.json: $(CXX_SRCS) $(B)/flags
	@{ sep='['; for f in $(CXX_SRCS); do \
	  printf '%s\n{"directory": "%s", "file": "%s", "command": "%s"}' "$$sep" '$(CURDIR)' $$f \
	    '$(CXX) $(CXX_FLAGS) -c '$$f; sep=','; done; printf '\n]\n'; } > $@

# ---- Installing ----------------------------------------------------------------------------------

VERSION = $(shell awk '/define SESHAT_VERSION_(MAJOR|MINOR|PATCH)/ { v = v s $$3; s = "." } END { print v ? v : "0.1.0" }' $(HEADERS))
INCDIR  := $(DESTDIR)$(PREFIX)/include/seshat
LIBDIR  := $(DESTDIR)$(PREFIX)/lib
DATADIR := $(DESTDIR)$(PREFIX)/share/seshat
PCDIR   := $(LIBDIR)/pkgconfig

define PC_CORE
prefix=$(PREFIX)
includedir=$${prefix}/include

Name: seshat-core
Description: Seshat's headers that need only the standard library: resp, raft, slots
Version: $(VERSION)
Cflags: -I$${includedir}
endef

define PC_ALL
prefix=$(PREFIX)
includedir=$${prefix}/include
libdir=$${prefix}/lib

Name: seshat
Description: All headers of Seshat, a replicated Redis-compatible store, and what they link with
Version: $(VERSION)
Requires: seshat-core $(PACKAGES)$(if $(filter yes,$(TLS)), openssl)
Cflags: $(DEFINES) $(NANOPB_CFLAGS)
Libs: -L$${libdir} -lseshat-proto $(NANOPB_LIBS) -pthread
endef
export PC_CORE PC_ALL

$(B)/libseshat-proto.a: $(PB_OBJS)
	@rm -f $@
	@ar rcs $@ $^

.PHONY: install uninstall clean help
install: all $(B)/libseshat-proto.a ## headers, daemon and pkg-config files; DESTDIR= PREFIX=/usr/local
	install -d $(INCDIR) $(PCDIR) $(DATADIR) $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(DAEMON) $(DESTDIR)$(PREFIX)/bin/seshat
	install -m 644 $(HEADERS) $(PB_HDRS) $(INCDIR)
	install -m 644 $(B)/libseshat-proto.a $(LIBDIR)
	install -m 644 $(wildcard proto/*.proto proto/*.options seshat.toml.example) $(DATADIR)
	@printf '%s\n' "$$PC_CORE" > $(PCDIR)/seshat-core.pc
	@printf '%s\n' "$$PC_ALL" > $(PCDIR)/seshat.pc
	@chmod 644 $(PCDIR)/seshat-core.pc $(PCDIR)/seshat.pc

uninstall: ## remove what install put there
	rm -rf $(INCDIR) $(DATADIR)
	rm -f $(DESTDIR)$(PREFIX)/bin/seshat $(LIBDIR)/libseshat-proto.a
	rm -f $(PCDIR)/seshat-core.pc $(PCDIR)/seshat.pc

clean: ## remove everything that was built
	rm -rf build seshat compile_commands.json

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile
