# shellcheck shell=sh
# Applies the commands of `uci batch` in $batch, which change the packages in $packages, and reloads their services. Unless
# confirm.sh runs within $confirm seconds, everything is as it was before. Runs in busybox's shell.
# shellcheck disable=SC2154
state=/tmp/mpquic-uci

restore() {
	for package in $packages; do
		uci -q revert "$package"
		cp -p "$state/$package" "/etc/config/$package"
	done
}

reload() {
	failed=
	for package in $packages; do
		"/etc/init.d/$package" reload >"$state/log" 2>&1 </dev/null || failed="$failed $package"
	done
	[ -z "$failed" ]
}

if ! mkdir -m 700 "$state" 2>/dev/null; then
	echo "$state is there: another run is applying something and has not been confirmed; wait for a minute and run" \
		"again, and if it stays, delete it" >&2
	exit 1
fi
trap 'rm -rf "$state"' EXIT

for package in $packages; do
	cp -p "/etc/config/$package" "$state/$package" || exit 1
done

# `uci batch` goes on after an error, and its exit status is 0.
errors=$(printf '%s\n' "$batch" | uci batch 2>&1 >/dev/null)
if [ -n "$errors" ]; then
	restore
	echo "uci refused the configuration, and nothing was changed: $errors" >&2
	exit 1
fi
for package in $packages; do
	if ! errors=$(uci commit "$package" 2>&1); then
		restore
		echo "$package could not be committed, and everything is as before; is the flash full? $errors" >&2
		exit 1
	fi
done

if ! reload; then
	services=$failed
	restore
	reload
	echo "these services did not take their new configuration, and have the old one again:$services; see logread" >&2
	exit 1
fi

# Whoever decides first, this or confirm.sh, makes the folder `decided`.
(
	trap '' HUP
	trap - EXIT
	left=$confirm
	while [ "$left" -gt 0 ] && [ ! -e "$state/decided" ]; do
		sleep 1
		left=$((left - 1))
	done
	if mkdir "$state/decided" 2>/dev/null; then
		logger -t mpquic "nobody has confirmed the configuration within $confirm s: the old one is back"
		restore
		reload
	fi
	rm -rf "$state"
) >/dev/null 2>&1 </dev/null &
trap - EXIT
