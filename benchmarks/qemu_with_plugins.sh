#!/bin/sh
# Builds qemu-aarch64 with plugins out of Debian's source, which Debian's own packages leave out, into the folder that is given:
#
#     benchmarks/qemu_with_plugins.sh build/qemu
#
# Takes a few minutes, and root for two packages (libglib2.0-dev, pkg-config). Leaves qemu-aarch64 and libinsn.so there.
set -e
mkdir -p "$1"
cd "$1"
[ -x qemu-aarch64 ] && [ -e libinsn.so ] && exit 0
apt-get install -qq --yes --no-install-recommends libglib2.0-dev pkg-config ninja-build gcc dpkg-dev >/dev/null
mkdir -p lists/partial
. /etc/os-release
key=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb-src [signed-by=$key] http://deb.debian.org/debian $VERSION_CODENAME main" >source.list
# Lists of its own: the machine's stay as they are.
own="-o Dir::Etc::sourcelist=$PWD/source.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$PWD/lists"
apt-get update -qq $own
apt-get source -qq $own qemu
python3 -m venv meson
meson/bin/pip install --quiet 'meson==0.63.3' setuptools
mkdir -p made
cd made
PATH="$PWD/../meson/bin:$PATH" ../qemu-[0-9]*/configure --meson="$PWD/../meson/bin/meson" --target-list=aarch64-linux-user \
  --enable-plugins --disable-system --disable-tools --disable-docs --disable-werror --disable-capstone --disable-guest-agent
ninja
cp qemu-aarch64 tests/plugin/libinsn.so ..
