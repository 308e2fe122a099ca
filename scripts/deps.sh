#!/usr/bin/env bash
# Sees to it that what Seshat needs is installed; says nothing and is quick when it is.
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/deps.sh [--build-only | --test] [--with-node] [--dry-run]

  --build-only  what `make` needs: a compiler, asio, RocksDB, nanopb, gRPC, OpenSSL, toml++, Catch2
  --test        and what `make check` needs: redis-tools, redis-py, hiredis, clang's tools, valgrind (the default)
  --with-node   and Node.js with npm, for the tests of JavaScript clients; npm is large, so it is asked for
  --dry-run     only print what is missing; exit 1 if anything is

On Debian and Ubuntu missing packages are installed by apt-get, with sudo when not root. Elsewhere this
prints what to install, and exits 1, until pkg-config and the compiler find it all.
END
}

# package, or package=command where the command counts as well, whoever installed it
build_packages=(make=make g++=g++ pkg-config=pkg-config libasio-dev librocksdb-dev libnanopb-dev nanopb
  libgrpc++-dev libprotobuf-dev libssl-dev libtomlplusplus-dev catch2)
test_packages=(redis-tools=redis-benchmark python3 python3-redis clang=clang++ clang-format=clang-format
  clang-tidy=clang-tidy openssl=openssl iproute2=ip mount=mount e2fsprogs=mkfs.ext4 xz-utils=xz
  valgrind=valgrind libhiredis-dev)
node_packages=(nodejs=node npm=npm)

with_test=yes with_node=no dry_run=no
for arg in "$@"; do
  case $arg in
    --build-only) with_test=no ;;
    --test) with_test=yes ;;
    --with-node) with_node=yes ;;
    --dry-run) dry_run=yes ;;
    -h | --help) usage; exit 0 ;;
    *) echo "scripts/deps.sh: unknown option $arg" >&2; usage >&2; exit 2 ;;
  esac
done

wanted=("${build_packages[@]}")
if [ $with_test = yes ]; then wanted+=("${test_packages[@]}"); fi
if [ $with_node = yes ]; then wanted+=("${node_packages[@]}"); fi

# For `make fuzz`. Where clang brings it along, there is no package of its own.
fuzzer_package=libclang-rt-dev
have_fuzzer() { compgen -G "$(clang++ -print-resource-dir 2>/dev/null)/lib/*/libclang_rt.fuzzer*" >/dev/null; }

missing_debian_packages() {
  local entry name installed
  installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${wanted[@]%%=*}" 2>/dev/null || true)
  for entry in "${wanted[@]}"; do
    name=${entry%%=*}
    if grep -qxF "$name installed" <<<"$installed"; then continue; fi
    if [ "$name" != "$entry" ] && command -v "${entry#*=}" >/dev/null; then continue; fi
    echo "$name"
  done
  if [ $with_test = yes ] && ! have_fuzzer; then echo $fuzzer_package; fi
}

install_debian_packages() {
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "not root, and there is no sudo. As root: apt-get install --no-install-recommends $*" >&2
      return 1
    fi
    as_root=(sudo)
  fi
  as_root+=(env DEBIAN_FRONTEND=noninteractive)
  # A foreign apt source that is down need not stop us: the installation tells what really is missing.
  "${as_root[@]}" apt-get update || echo "apt-get update failed; going on with the lists at hand" >&2
  if ! apt-cache show $fuzzer_package >/dev/null 2>&1; then
    local package packages=()
    for package in "$@"; do if [ "$package" != $fuzzer_package ]; then packages+=("$package"); fi; done
    set -- "${packages[@]}"
  fi
  "${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
}

have_header() { printf '#include <%s>\n' "$1" | "$compiler" -std=c++20 -x c++ -fsyntax-only - 2>/dev/null; }

# Prints, one a line, what neither pkg-config nor the compiler finds.
missing_elsewhere() {
  local tool package
  for tool in make pkg-config; do command -v $tool >/dev/null || echo "$tool"; done
  command -v nanopb_generator >/dev/null || command -v nanopb_generator.py >/dev/null || echo "nanopb's generator"
  for package in rocksdb grpc++ openssl tomlplusplus; do
    pkg-config --exists $package 2>/dev/null || echo "$package (pkg-config $package)"
  done
  compiler=${CXX:-$(command -v g++ || command -v clang++ || true)}
  if [ -z "$compiler" ]; then echo "g++ 12 or clang 14, or newer"; return; fi
  have_header asio.hpp || echo "asio (asio.hpp)"
  have_header pb.h || have_header nanopb/pb.h || echo "nanopb (pb.h)"
  have_header catch2/catch.hpp || have_header catch2/catch_all.hpp || echo "Catch2 (catch2/)"
  if [ $with_test = no ]; then return; fi
  for tool in redis-cli redis-benchmark python3 clang++ clang-format clang-tidy; do
    command -v $tool >/dev/null || echo "$tool"
  done
  pkg-config --exists hiredis 2>/dev/null || echo "hiredis (pkg-config hiredis)"
  python3 -c 'import redis' 2>/dev/null || echo "redis-py (python3 -c 'import redis')"
}

names_elsewhere() {
  cat <<'END'

Names there, as far as we know:
  Fedora    make gcc-c++ pkgconf-pkg-config asio-devel rocksdb-devel nanopb-devel nanopb-generator grpc-devel
            protobuf-devel openssl-devel tomlplusplus-devel catch-devel; tests: redis python3-redis hiredis-devel clang
            clang-tools-extra compiler-rt valgrind
  Arch      base-devel asio rocksdb grpc protobuf openssl tomlplusplus catch2, nanopb (AUR);
            tests: redis python-redis hiredis clang compiler-rt valgrind
  Homebrew  make pkgconf asio rocksdb nanopb grpc protobuf openssl tomlplusplus catch2; tests: redis hiredis llvm
            (build with `gmake CPPFLAGS=-I$(brew --prefix)/include LDFLAGS=-L$(brew --prefix)/lib`)
END
}

if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
  mapfile -t missing < <(missing_debian_packages)
  if [ ${#missing[@]} = 0 ]; then exit 0; fi
  echo "missing: ${missing[*]}"
  if [ $dry_run = yes ]; then exit 1; fi
  install_debian_packages "${missing[@]}"
else
  mapfile -t missing < <(missing_elsewhere)
  if [ ${#missing[@]} = 0 ]; then exit 0; fi
  echo "This is neither Debian nor Ubuntu. Please install:"
  printf '  %s\n' "${missing[@]}"
  names_elsewhere
  exit 1
fi
