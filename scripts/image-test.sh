#!/usr/bin/env bash
# Builds the image of deploy/Dockerfile with buildah, runs it, and prints its size. Needs root, buildah and mmdebstrap
# (on Debian: apt-get install buildah mmdebstrap), and the network. Both base images are made from Debian packages,
# because a registry may be out of reach. Usage: image-test.sh TOOLS_FOLDER CALLGATE
#
# The build stage compiles nothing by default: its cargo copies the given program. FULL=1 compiles with the toolchain of
# this machine, which takes many minutes.
set -euo pipefail

for program in buildah mmdebstrap; do
    command -v "$program" >/dev/null || missing="${missing:+$missing }$program"
done
[ "$EUID" = 0 ] || missing="${missing:+$missing }root"
if [ -n "${missing:-}" ]; then
    echo "THE IMAGE WAS NOT TESTED: missing: $missing" >&2
    exit "${STRICT:-0}"
fi

tools=$(realpath -m "$1")
callgate=$(realpath "$2")
root=$(cd "$(dirname "$0")/.." && pwd)
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
bases="$tools/image"
work=$(mktemp -d)
store() { buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"; }
server=
# Ends a process and its children, the innermost first: buildah does not pass a signal on.
end_tree() {
    local child
    for child in $(pgrep -P "$1"); do end_tree "$child"; done
    kill "$1" 2>/dev/null || true
}
end() {
    if [ -n "$server" ]; then end_tree "$server"; wait "$server" 2>/dev/null || true; fi
    store rm --all >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap end EXIT
mkdir -p "$bases" "$work/etc"

# The runtime base has what distroless/cc-debian12 has: the C library, CA certificates, time zones, no shell.
if [ ! -e "$bases/runtime.tar" ]; then
    mmdebstrap --quiet --variant=extract --include=base-files,ca-certificates,libc6,libgcc-s1,netbase,tzdata \
        --extract-hook='cat "$1"/usr/share/ca-certificates/mozilla/*.crt > "$1/etc/ssl/certs/ca-certificates.crt"' \
        bookworm "$bases/runtime.tar.part" "$mirror" 2>&1 && mv "$bases/runtime.tar.part" "$bases/runtime.tar"
fi
if [ ! -e "$bases/builder.tar" ]; then
    mmdebstrap --quiet --variant=apt bookworm "$bases/builder.tar.part" "$mirror" 2>&1 \
        && mv "$bases/builder.tar.part" "$bases/builder.tar"
fi

mkdir -p "$work/toolchain/usr/local/bin"
if [ -n "${FULL:-}" ]; then
    mkdir -p "$work/toolchain/usr/local/rust"
    cp -a "$(rustc --print sysroot)"/{bin,lib} "$work/toolchain/usr/local/rust/"
    # The crates come over TLS, perhaps through a proxy whose authority only this machine trusts.
    install -D "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$work/toolchain/etc/ssl/certs/ca-certificates.crt"
    for program in cargo rustc; do ln -s "/usr/local/rust/bin/$program" "$work/toolchain/usr/local/bin/$program"; done
else
    mkdir -p "$work/toolchain/prebuilt"
    strip -o "$work/toolchain/prebuilt/callgate" "$callgate"
    printf '#!/bin/sh\nset -e\n[ "$*" = "build --release --locked --bin callgate" ]\n[ -e Cargo.lock ]\nmkdir -p target/release\ncp /prebuilt/callgate target/release/\n' > "$work/toolchain/usr/local/bin/cargo"
    chmod +x "$work/toolchain/usr/local/bin/cargo"
fi

# base NAME ARCHIVE...: makes an image from the contents of archives and folders.
base() {
    local name=$1 container
    shift
    container=$(store from scratch)
    for content in "$@"; do store add --quiet "$container" "$content" / >/dev/null; done
    store config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    store commit --quiet --format docker "$container" "localhost/$name" >/dev/null
    store rm "$container" >/dev/null
}
base runtime "$bases/runtime.tar"
base builder "$bases/builder.tar" "$work/toolchain"

cd "$root"
store bud --quiet --isolation chroot --format docker --pull-never --ignorefile deploy/Dockerfile.dockerignore \
    --build-arg BUILDER=localhost/builder --build-arg RUNTIME=localhost/runtime \
    -f deploy/Dockerfile -t localhost/callgate . >/dev/null

# What the image says about itself.
said() { store inspect --type image --format "$1" localhost/callgate; }
expect() { [ "$1" = "$2" ] || { echo "error: expected $2, found $1" >&2; exit 1; }; }
expect "$(said '{{.Docker.Config.User}}')" 65532:65532
expect "$(said '{{.Docker.Config.Entrypoint}}')" '[/callgate]'
expect "$(said '{{.Docker.Config.Healthcheck.Test}}')" '[CMD /callgate health --admin 127.0.0.1:9901]'

# A process in the image serves, and the health command of the image answers.
container=$(store from --pull-never localhost/callgate)
run() { store run --isolation chroot --user 65532:65532 -v "$work/etc:/etc/callgate:ro" "$container" -- "$@"; }
port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
admin=$(port)
cat > "$work/etc/callgate.yaml" <<YAML
listen: { ingress: [ { address: "127.0.0.1:$(port)" } ], admin: { address: "127.0.0.1:$admin" } }
agent: { address: "127.0.0.1:1" }
store: { kind: file, path: /var/lib/callgate/ledger.redb }
routes: [ { name: r, path: /r, open: true, forward: /in } ]
YAML
chmod -R a+rX "$work/etc"
chmod a+x "$work"
expect "$(run /callgate --version)" "callgate $(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)"
run /callgate check -c /etc/callgate/callgate.yaml
run /callgate run -c /etc/callgate/callgate.yaml 2>"$work/log" >/dev/null &
server=$!
for _ in $(seq 100); do
    if run /callgate health --ready --admin "127.0.0.1:$admin" >"$work/health" 2>/dev/null; then break; fi
    kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
done
expect "$(cat "$work/health")" ok

mounted=$(store mount "$container")
[ ! -e "$mounted/bin/sh" ] || { echo "error: the image has a shell" >&2; exit 1; }
[ -s "$mounted/etc/ssl/certs/ca-certificates.crt" ] || { echo "error: the image has no CA certificates" >&2; exit 1; }
expect "$(stat -c %u:%g "$mounted/var/lib/callgate")" 65532:65532
echo "the image: $(du -sm "$mounted" | cut -f1) MiB, of which /callgate has $(du -sm "$mounted/callgate" | cut -f1) MiB"
