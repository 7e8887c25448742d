#!/bin/sh
# Prints the first Python that runs here, of the versions that are given, by default the newest that CuPy has wheels for: on
# the PATH, or one of pyenv's that is not selected; otherwise python3.
for version in ${@:-3.13 3.12}; do
    for candidate in "python$version" "$(pyenv root 2>/dev/null)"/versions/"$version".*/bin/python; do
        if "$candidate" -c 'import venv' 2>/dev/null; then
            echo "$candidate"
            exit
        fi
    done
done
echo python3
