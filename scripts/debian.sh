# A function that unpacks a Debian package into TOOLS_FOLDER, without changes to the system. Source this file.

# Usage: bring_debian PACKAGE TOOLS_FOLDER. The files are then in TOOLS_FOLDER/PACKAGE/root.
bring_debian() {
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    local package=$1 folder="$2/$1.new"
    rm -rf "$folder"
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial" "$folder/root"
    # Uses the package lists of the system. If they are missing or outdated, downloads new lists into the folder.
    local here=(-o "Dir::State::lists=$folder/lists" -o "Dir::Cache=$folder/cache" -o "APT::Sandbox::User=$(id -un)")
    (cd "$folder" && apt-get -qq -o "APT::Sandbox::User=$(id -un)" download "$package" 2>/dev/null) ||
        { apt-get -qq "${here[@]}" update 2>/dev/null && (cd "$folder" && apt-get -qq "${here[@]}" download "$package"); } ||
        return 1
    dpkg -x "$folder/${package}"_*.deb "$folder/root"
    rm -rf "$folder/lists" "$folder/cache" "$folder"/*.deb "$2/$package"
    mv "$folder" "$2/$package"
}
