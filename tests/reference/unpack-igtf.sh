# Unpacks the CA certificates and signing policies of the IGTF, as Debian packages them, under a directory: real files
# for the tests to read. Nothing is installed, so no program of this machine trusts these CAs. To be sourced:
# unpack_igtf TARGET
# Afterwards TARGET/root/usr/share/igtf-policy holds a folder for each profile.

unpack_igtf() (
    set -eu
    target=$1
    if [ -d "$target/root/usr/share/igtf-policy/classic" ]; then
        echo "igtf: already unpacked in $target"
        exit 0
    fi
    mkdir -p "$target"
    target=$(cd "$target" && pwd)
    rm -rf "$target/packages" "$target/root"
    mkdir -p "$target/packages" "$target/root.new"
    (cd "$target/packages" && apt-get -qq -o APT::Sandbox::User=root download \
        igtf-policy-classic igtf-policy-mics igtf-policy-slcs igtf-policy-iota)
    for package in "$target"/packages/*.deb; do
        echo "igtf: unpacking ${package##*/}"
        dpkg -x "$package" "$target/root.new"
    done
    mv "$target/root.new" "$target/root"
    rm -rf "$target/packages"
)
