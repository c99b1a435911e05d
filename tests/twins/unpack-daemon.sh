# Unpacks a daemon of Debian under a directory, for the tests against a real one. It is not installed: its installation
# would start it. To be sourced: unpack_daemon TARGET PROGRAM PACKAGE...
# Afterwards TARGET/root/usr/sbin/PROGRAM runs with the LD_LIBRARY_PATH that stands in TARGET/library-path.

packages_with_libraries() {
    # these themselves, and all libraries that apt would bring along to this machine anew
    printf '%s\n' "$@"
    apt-get --simulate --no-install-recommends install "$@" | sed -n 's/^Inst \(lib[^ ]*\) (.*/\1/p' | sort -u
}

unpack_daemon() (
    set -eu
    target=$1 program=$2
    shift 2
    if [ -x "$target/root/usr/sbin/$program" ] && [ -s "$target/library-path" ]; then
        echo "$program: already unpacked in $target"
        exit 0
    fi
    mkdir -p "$target"
    target=$(cd "$target" && pwd)
    rm -rf "$target/packages" "$target/root" "$target/library-path"
    mkdir -p "$target/packages" "$target/root"
    packages=$(packages_with_libraries "$@" | tr '\n' ' ')
    echo "$program: downloading $packages"
    # shellcheck disable=SC2086  # a list of package names, to be split
    (cd "$target/packages" && apt-get -qq -o APT::Sandbox::User=root download $packages)
    for package in "$target"/packages/*.deb; do
        echo "$program: unpacking ${package##*/}"
        dpkg -x "$package" "$target/root"
    done
    libraries=$(find "$target/root" -name 'lib*.so*' -path '*/lib/*-linux-gnu/*' -printf '%h\n' | sort -u | paste -sd :)
    missing=$(LD_LIBRARY_PATH=$libraries ldd "$target/root/usr/sbin/$program" | grep 'not found' || true)
    if [ -n "$missing" ]; then
        echo "$program: these libraries are missing:" "$missing" >&2
        exit 1
    fi
    rm -rf "$target/packages"
    # where all were there before, nothing of ours
    echo "${libraries:-$target/root}" >"$target/library-path"
    echo "$program: unpacked in $target"
)
