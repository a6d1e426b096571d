# shellcheck shell=sh
# Prints the packages of UCI in $packages as `uci export` does. Runs in busybox's shell.
# shellcheck disable=SC2154
if ! command -v uci >/dev/null; then
	echo "there is no program uci: this is no OpenWrt" >&2
	exit 1
fi
for package in $packages; do
	if [ ! -e "/etc/config/$package" ]; then
		echo "there is no /etc/config/$package: install $package (opkg install $package), and run again" >&2
		exit 1
	fi
	pending=$(uci -q changes "$package")
	if [ -n "$pending" ]; then
		echo "somebody has changed $package and not committed it; commit it (uci commit $package) or take it back" \
			"(uci revert $package), and run again:" >&2
		echo "$pending" >&2
		exit 1
	fi
	uci export "$package" || exit 1
done
