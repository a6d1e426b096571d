# shellcheck shell=sh
# Keeps what apply.sh has applied. Runs in busybox's shell.
if ! mkdir /tmp/mpquic-uci/decided 2>/dev/null; then
	echo "the router took too long to be reached again, and has its old configuration back; see whether the way to it" \
		"leads over what was changed, or raise openwrt_confirm_s" >&2
	exit 1
fi
