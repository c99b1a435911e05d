# Unpacks promtool, as Debian packages it with Prometheus, under a directory. Nothing is installed, so no server starts.
# To be sourced: unpack_promtool TARGET
# Afterwards TARGET/promtool is the program.

unpack_promtool() (
    set -eu
    target=$1
    mkdir -p "$target"
    target=$(cd "$target" && pwd)
    (cd "$target" && apt-get -qq -o APT::Sandbox::User=root download prometheus)
    dpkg -x "$target"/prometheus_*.deb "$target/root"
    mv "$target/root/usr/bin/promtool" "$target/promtool"
    rm -rf "$target/root" "$target"/prometheus_*.deb
)
