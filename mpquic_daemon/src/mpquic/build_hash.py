"""The build hash of this package; the build of a wheel puts another module in its place (library/wheelhouse.py)."""

BUILD_HASH = ""
