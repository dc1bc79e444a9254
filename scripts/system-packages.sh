#!/usr/bin/env bash
# Install the system libraries that Python wheels cannot bring: those of the window, and a virtual display for the tests.
#
#   bash scripts/system-packages.sh [python] [window] [display]
#
# Does nothing where they are present. Where they are missing and this user may not install them it says what to ask
# for, and still succeeds: scripts, command line and the tests without a window need none of it.
set -euo pipefail

[ "$(uname -s)" = Linux ] || exit 0 # macOS and Windows wheels bring all they need

PYTHON=${PYTHON:-python3}
missing=()

has_library() { # the loader's cache, or the usual folders where ldconfig is out of reach
    { ldconfig -p 2>/dev/null || /sbin/ldconfig -p; } 2>/dev/null | grep -F "$1" >/dev/null ||
        compgen -G "/usr/lib*/$1" >/dev/null || compgen -G "/usr/lib/*/$1" >/dev/null
}

need_library() { has_library "$1" || missing+=("$2"); }

for part in "$@"; do
    case $part in
    python)
        "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
        ;;
    window) # what Qt's xcb platform plugin and napari's OpenGL canvas link to
        need_library libEGL.so.1 libegl1
        need_library libGL.so.1 libgl1
        need_library libglib-2.0.so.0 libglib2.0-0
        need_library libfontconfig.so.1 libfontconfig1
        need_library libdbus-1.so.3 libdbus-1-3
        need_library libX11-xcb.so.1 libx11-xcb1
        need_library libxkbcommon-x11.so.0 libxkbcommon-x11-0
        need_library libxcb-cursor.so.0 libxcb-cursor0
        need_library libxcb-icccm.so.4 libxcb-icccm4
        need_library libxcb-image.so.0 libxcb-image0
        need_library libxcb-keysyms.so.1 libxcb-keysyms1
        need_library libxcb-randr.so.0 libxcb-randr0
        need_library libxcb-render-util.so.0 libxcb-render-util0
        need_library libxcb-shape.so.0 libxcb-shape0
        need_library libxcb-xinerama.so.0 libxcb-xinerama0
        need_library libxcb-xkb.so.1 libxcb-xkb1
        ;;
    display)
        command -v xvfb-run >/dev/null || missing+=(xvfb xauth)
        ;;
    *)
        echo "system-packages.sh: unknown part '$part'; use python, window or display" >&2
        exit 2
        ;;
    esac
done

[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "NOTE: this system lacks what Debian and Ubuntu call: ${missing[*]}. Install these with your package manager." >&2
    exit 0
elif [ "$(id -u)" = 0 ]; then
    as_root=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
else
    echo "NOTE: system packages are missing and this user may not install them. Ask for:" >&2
    echo "      sudo apt-get install ${missing[*]}" >&2
    exit 0
fi

echo "Installing system packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
if ! { "${as_root[@]}" apt-get update -qq &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }; then
    echo "NOTE: apt-get could not install ${missing[*]}; see its message above." >&2
fi
