#!/usr/bin/env bash
# Prints the command of a headless Chromium. If none is installed, unpacks Debian's chromium-headless-shell and the
# missing shared libraries into TOOLS_FOLDER, without root. If that is not possible, prints the reason and fails. Usage:
# browser.sh TOOLS_FOLDER
set -euo pipefail
mkdir -p "$1"
folder="$(cd "$1" && pwd)/browser"
start="$folder/headless"

for candidate in ${CHROMIUM:+"$CHROMIUM"} chromium-headless-shell chromium chromium-browser google-chrome "$start"; do
    command -v "$candidate" && exit 0
done

missing() {
    echo "missing: a headless Chromium ($1); install Debian's chromium-headless-shell or chromium, or set CHROMIUM to a browser" >&2
    exit 1
}
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || missing "there is no apt-get here to bring one"
[ "$(id -u)" != 0 ] || apt-get update -qq >&2 || true
# A simulated installation lists the packages that are not installed. Each is unpacked without installing it.
packages=$(apt-get install --simulate --no-install-recommends chromium-headless-shell 2>/dev/null |
    sed -n 's/^Inst \([^ ]*\).*/\1/p') || true
[ -n "$packages" ] || missing "apt-get knows no chromium-headless-shell"
echo "bringing $(wc -w <<<"$packages") packages of a headless Chromium into $folder" >&2
rm -rf "$folder" && mkdir -p "$folder/debs"
# apt-get verifies the packages against the signed index of the archive.
# shellcheck disable=SC2086
(cd "$folder/debs" && apt-get download -qq -o APT::Sandbox::User=root $packages >&2) || missing "the packages could not be had"
for deb in "$folder"/debs/*.deb; do dpkg-deb -x "$deb" "$folder"; done
rm -rf "$folder/debs"
shell=$(find "$folder/usr" -type f -name 'chromium-headless-shell' -path '*/lib/*' | head -n 1)
[ -n "$shell" ] || shell=$(find "$folder/usr" -type f -name 'headless_shell' | head -n 1)
[ -n "$shell" ] || missing "the package holds no program that was expected"
# Some packages have their libraries in subfolders.
libraries=$(find "$folder/usr/lib" -name '*.so*' -not -path '*/chromium/*' -printf '%h\n' | sort -u | paste -sd :)
printf '#!/bin/sh\nLD_LIBRARY_PATH=%q${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec %q "$@"\n' "$libraries" "$shell" >"$start"
chmod +x "$start"
"$start" --version >/dev/null 2>&1 || { "$start" --version >&2 || true; rm "$start"; missing "it does not start"; }
echo "$start"
