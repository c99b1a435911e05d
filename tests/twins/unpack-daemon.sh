# Unpacks Debian's orthanc under a directory, for the tests against a real PACS. It is not installed: its installation
# would start a daemon. To be sourced: unpack_orthanc TARGET
# Afterwards TARGET/root/usr/sbin/Orthanc runs with the LD_LIBRARY_PATH that stands in TARGET/library-path.

orthanc_packages() {
    # orthanc itself, and those of the libraries it depends on that this machine does not have
    echo orthanc
    apt-cache depends orthanc | sed -n 's/^ *|\{0,1\}Depends: \(lib[^ <>]*\)$/\1/p' | sort -u |
        while read -r package; do
            dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || echo "$package"
        done
}

unpack_orthanc() (
    set -eu
    target=$1
    if [ -x "$target/root/usr/sbin/Orthanc" ] && [ -s "$target/library-path" ]; then
        echo "orthanc: already unpacked in $target"
        exit 0
    fi
    mkdir -p "$target"
    target=$(cd "$target" && pwd)
    rm -rf "$target/packages" "$target/root" "$target/library-path"
    mkdir -p "$target/packages" "$target/root"
    packages=$(orthanc_packages | tr '\n' ' ')
    echo "orthanc: downloading $packages"
    # shellcheck disable=SC2086  # a list of package names, to be split
    (cd "$target/packages" && apt-get -qq -o APT::Sandbox::User=root download $packages)
    for package in "$target"/packages/*.deb; do
        echo "orthanc: unpacking ${package##*/}"
        dpkg -x "$package" "$target/root"
    done
    libraries=$(find "$target/root" -name 'lib*.so*' -path '*/lib/*-linux-gnu/*' -printf '%h\n' | sort -u | paste -sd :)
    missing=$(LD_LIBRARY_PATH=$libraries ldd "$target/root/usr/sbin/Orthanc" | grep 'not found' || true)
    if [ -n "$missing" ]; then
        echo "orthanc: these libraries are missing:" "$missing" >&2
        exit 1
    fi
    rm -rf "$target/packages"
    echo "$libraries" >"$target/library-path"
    echo "orthanc: unpacked in $target"
)
