#!/usr/bin/env bash
# Runs the services under a real systemd and sees them installed, started,
# killed, restarted, refused, stopped and uninstalled.
#
#   scripts/test-systemd.sh [DIRECTORY OF THE BINARIES]      (default: bin)
#
# systemd runs as the first process of namespaces of its own, on a throw-away
# copy of a small Debian that is built once and kept in .tools (250 MB). The
# machine itself is not touched. Needs root, Debian or one of its relatives, and
# the network for the first run. Not a part of "make test".
#
# SERVICES="certctl-agent" tests one of the services only.
set -euo pipefail
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$(cd "${1:-$root/bin}" && pwd)
read -ra services <<<"${SERVICES:-certctl-agent certctl-coordinator}"
base=$root/.tools/systemd-root
suite=bookworm

die() { printf 'test-systemd: %s\n' "$*" >&2; exit 1; }
[ "$(id -u)" -eq 0 ] || die "namespaces and debootstrap need root: run it with sudo"
for s in "${services[@]}"; do
	[ -x "$bin/$s" ] || die "there is no $bin/$s: run \"make build\" first"
done

if [ ! -d "$base" ]; then
	command -v debootstrap >/dev/null || {
		command -v apt-get >/dev/null || die "debootstrap is missing and there is no apt-get: install it by hand"
		echo "installing debootstrap"
		apt-get -qq -o DPkg::Lock::Timeout=300 update
		DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends debootstrap >/dev/null
	}
	echo "building a small Debian with systemd (a minute)"
	rm -rf "$base.new"
	mkdir -p "$root/.tools"
	log=$(mktemp)
	debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,procps,nginx-light "$suite" "$base.new" >"$log" 2>&1 || {
		tail -5 "$log" >&2
		die "debootstrap failed: $log"
	}
	rm -f "$log"
	mv "$base.new" "$base"
fi

# ---- systemd in namespaces

scratch=$(mktemp -d)
unified=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET) || die "this kernel has no cgroup2 file system mounted"
cgroup=$unified$(sed -n 's/^0:://p' /proc/self/cgroup | sed 's|/$||')/certctl-test-$$
supervisor= pid1=
cleanup() {
	status=$?
	set +e # all of it, whatever fails
	if [ "$status" -ne 0 ] && [ -n "$pid1" ]; then
		echo "---- the last of the journal" >&2
		inside journalctl --no-pager --quiet --lines=40 >&2 || true
	fi
	# systemd does not end at SIGTERM; its namespaces end with its parent.
	if [ -n "$supervisor" ]; then
		kill -KILL "$supervisor" 2>/dev/null || true
		wait "$supervisor" 2>/dev/null || true
	fi
	for _ in $(seq 50); do
		[ -d "$cgroup" ] || break
		find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null && break
		sleep 0.1
	done
	if [ "$status" -ne 0 ] && [ -f "$scratch/console" ]; then
		echo "---- the last of systemd's console" >&2
		tail -40 "$scratch/console" >&2
	fi
	rm -rf "$scratch"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

mkdir "$cgroup" "$scratch/root" "$scratch/layers"
cat >"$scratch/first" <<'INSIDE'
set -e
base=$1 root=$2 layers=$3
mount -t tmpfs tmpfs "$layers"
mkdir "$layers/upper" "$layers/work"
mount -t overlay overlay -o "lowerdir=$base,upperdir=$layers/upper,workdir=$layers/work" "$root"
cd "$root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for d in null zero full random urandom tty; do touch "dev/$d"; mount --bind "/dev/$d" "dev/$d"; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx # PrivateDevices= needs it
ln -s /proc/self/fd dev/fd
mount -t tmpfs tmpfs dev/shm
mountpoint -q sys/fs/cgroup || mount -t cgroup2 none sys/fs/cgroup
mkdir -p old
pivot_root . old
umount -l /old
export container=certctl-test
exec /lib/systemd/systemd --unit=multi-user.target
INSIDE
(
	echo "$BASHPID" >"$cgroup/cgroup.procs"
	exec setsid unshare --pid --fork --mount --uts --ipc --net --cgroup --propagation private --kill-child -- \
		bash "$scratch/first" "$base" "$scratch/root" "$scratch/layers"
) </dev/null >"$scratch/console" 2>&1 &
supervisor=$!

# inside COMMAND: run it beside systemd.
inside() { nsenter --target "$pid1" --mount --uts --ipc --net --pid --cgroup --root --wd -- env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C "$@"; }

# within SECONDS WHAT COMMAND: it must succeed by then; it is tried again and again.
within() {
	local seconds=$1 what=$2
	shift 2
	local end=$((SECONDS + seconds))
	until "$@" >"$scratch/out" 2>&1; do
		[ "$SECONDS" -lt "$end" ] || { cat "$scratch/out" >&2; die "not within $seconds s: $what"; }
		sleep 0.2
	done
}

# ok WHAT COMMAND: it must succeed. refused WHAT TEXT COMMAND: it must fail and say so.
ok() {
	local what=$1
	shift
	inside "$@" >"$scratch/out" 2>&1 || { cat "$scratch/out" >&2; die "failed: $what"; }
	printf '  ok: %s\n' "$what"
}
refused() {
	local what=$1 text=$2
	shift 2
	if inside "$@" >"$scratch/out" 2>&1; then
		cat "$scratch/out" >&2
		die "was not refused: $what"
	fi
	grep -qF -- "$text" "$scratch/out" || { cat "$scratch/out" >&2; die "does not say \"$text\": $what"; }
	printf '  ok: %s\n' "$what"
}

begun() { pid1=$(pgrep --parent "$supervisor" --exact systemd); }
booted() { inside systemctl is-system-running | grep -qxE 'running|degraded'; }
within 20 "systemd begins" begun
within 60 "systemd has started" booted
echo "systemd $(inside systemctl --version | awk 'NR == 1 { print $2 }') runs"

property() { inside systemctl show --value --property="$2" "$1"; }
active() { [ "$(property "$1" ActiveState)" = active ]; }
another_pid() { active "$1" && [ "$(property "$1" MainPID)" != "$2" ]; }

# put FILE: its content is standard input.
put() { inside sh -c 'mkdir -p "$(dirname "$1")" && cat >"$1"' sh "$1"; }

# ---- what each service must do

verbs() {
	local s=$1 config=$2 state_dir=$3 exposure=$4 pid
	local daemon=/usr/local/bin/$s unit=/etc/systemd/system/$s.service
	echo "$s"
	for place in /usr/local/bin /root; do
		put "$place/$s" <"$bin/$s"
		inside chmod 0755 "$place/$s"
	done

	refused "a status before there is a service" "not installed" "$daemon" service status
	refused "a start before there is a service" "install it with" "$daemon" start
	refused "an installation by somebody else than root" "sudo" setpriv --reuid=65534 --clear-groups "$daemon" install
	refused "an installation of a program that the service could not see" "hidden from the service" "/root/$s" install
	inside chmod 0777 "$daemon"
	refused "an installation of a program that anybody may change" "others than root" "$daemon" install
	inside chmod 0755 "$daemon"
	refused "an installation with a configuration that is not there" "no configuration file" "$daemon" install --config /etc/certctl/nowhere.yaml
	refused "an installation with a setting for one command" "--set" "$daemon" install --set log.level=debug
	if inside test -e "$unit"; then die "a refused installation left $unit"; fi

	printf 'log:\n  level: info\n' | put "$config"
	ok "install" "$daemon" install --config "$config"
	diff <(sed "s#^ExecStart=.*#ExecStart=$daemon run --config $config#" "$root/packaging/systemd/$s.service") <(inside cat "$unit") ||
		die "the installed unit is not the packaged one"
	ok "the unit is correct (systemd-analyze verify)" sh -c "out=\$(systemd-analyze verify --man=no $unit 2>&1) && { [ -z \"\$out\" ] || { echo \"\$out\"; exit 1; }; }"
	ok "its exposure is at most $exposure (systemd-analyze security)" systemd-analyze security --offline=yes --threshold="$exposure" "$unit"
	refused "a second installation" "installed already" "$daemon" install --config "$config"
	refused "a status while it does not run" "does not run" "$daemon" service status

	ok "start" "$daemon" start
	active "$s" || die "$s is not active after start"
	ok "start, when it runs" "$daemon" start
	ok "service status" "$daemon" service status
	ok "service status as somebody else" setpriv --reuid=65534 --clear-groups "$daemon" service status --output json
	[ "$(inside stat --dereference --format=%a "$state_dir")" = 700 ] || die "$state_dir is not private"

	pid=$(property "$s" MainPID)
	inside kill -KILL "$pid"
	within 10 "$s runs again after kill -9" another_pid "$s" "$pid"
	echo "  ok: started again after kill -9"

	pid=$(property "$s" MainPID)
	ok "installation anew with --force" "$daemon" install --config "$config" --force
	[ "$(property "$s" MainPID)" = "$pid" ] || die "install --force ended the running service"
	ok "reload" systemctl reload "$s"
	within 10 "$s runs after a reload" active "$s"

	printf 'log:\n  levle: info\n' | put "$config"
	refused "a restart with a misspelt setting, with the reason" "levle" "$daemon" restart
	printf 'log:\n  level: info\n' | put "$config"
	within 10 "$s runs once its configuration is mended" active "$s"
	echo "  ok: runs again by itself once its configuration is mended"

	printf '[Service]\nWatchdogSec=2s\n' | put "/run/systemd/system/$s.service.d/watchdog.conf"
	inside systemctl daemon-reload
	ok "restart" "$daemon" restart
	pid=$(property "$s" MainPID)
	inside kill -STOP "$pid"
	within 15 "the watchdog restarts $s when it stands still" another_pid "$s" "$pid"
	echo "  ok: restarted by the watchdog when it stood still"
	inside rm -r "/run/systemd/system/$s.service.d"
	inside systemctl daemon-reload
}

gone() {
	local s=$1 state_dir=$2 daemon=/usr/local/bin/$1
	ok "stop" "$daemon" stop
	[ "$(property "$s" ActiveState)/$(property "$s" Result)" = inactive/success ] || die "$s did not end well: $(property "$s" ActiveState) $(property "$s" Result)"
	ok "stop, when it does not run" "$daemon" stop
	ok "start, to uninstall it while it runs" "$daemon" start
	ok "uninstall" "$daemon" uninstall
	[ "$(property "$s" LoadState)" = not-found ] || die "$s is still known to systemd"
	if inside pgrep --exact "${s:0:15}"; then die "$s still runs"; fi
	inside test -d "$state_dir" || die "uninstall removed $state_dir"
	refused "a second uninstall" "not installed" "$daemon" uninstall
}

# What an agent does on a host, done with its rights: each line of the program
# would fail if the unit took away too much, or too little.
sandbox() {
	echo "certctl-agent's sandbox, with a real nginx"
	inside systemctl start nginx
	inside install -m 0644 /dev/null /root/file
	put /usr/local/bin/as-the-agent <<'PROGRAM'
#!/bin/sh
set -ex
denied() { if "$@"; then echo "was allowed: $*"; exit 1; fi; }
nginx -t
systemctl reload nginx
install -m 0640 -o www-data -g www-data /dev/null /etc/nginx/deployed.pem
mv /etc/nginx/deployed.pem /etc/nginx/renamed.pem
runuser -u www-data -- test -r /etc/nginx/renamed.pem
runuser -u www-data -- sleep 60 & sleep 0.5; pkill -HUP -u www-data sleep
denied touch /usr/bin/written
denied test -e /root/file
denied mount -t tmpfs tmpfs /mnt
denied unshare --user true
denied date --set 2001-01-01
PROGRAM
	inside chmod 0755 /usr/local/bin/as-the-agent
	printf '[Service]\nExecStartPost=/usr/local/bin/as-the-agent\n' | put /run/systemd/system/certctl-agent.service.d/sandbox.conf
	inside systemctl daemon-reload
	inside /usr/local/bin/certctl-agent restart >"$scratch/out" 2>&1 || {
		cat "$scratch/out" >&2
		die "the agent's unit does not let it do its work"
	}
	ok "checks, reloads, deploys; and nothing else" systemctl is-active nginx
	inside rm -r /run/systemd/system/certctl-agent.service.d
	inside systemctl daemon-reload
}

# blocks FILE: the code blocks of a page's quickstart, each as its language, its
# lines, and a line of dots.
blocks() { awk '/^## /{on = $2 == "Quickstart"} !on {next} /^```/{if (inside) {print "..."; inside = 0} else {print substr($0, 4); inside = 1} next} inside' "$1"; }

# What README.md promises a new user, word for word, on a host that has nothing
# of certctl: no configuration directory, the coordinator first.
quickstart() {
	local language block="" line printed token=""
	echo "the quickstart of README.md"
	for s in "${services[@]}" certctl; do
		put "/usr/local/bin/$s" <"$bin/$s"
		inside chmod 0755 "/usr/local/bin/$s"
	done
	printf '#!/bin/sh\nexec "$@"\n' | put /usr/local/bin/sudo
	inside chmod 0755 /usr/local/bin/sudo
	printf '127.0.0.1 localhost %s\n' "$(inside hostname)" | put /etc/hosts
	inside rm -rf /etc/certctl
	while IFS= read -r language; do
		block=
		while IFS= read -r line && [ "$line" != ... ]; do block+=$line$'\n'; done
		case $language in
		yaml) printf %s "$block" | put /etc/certctl/agent.yaml && continue ;;
		sh) ;;
		*) die "the quickstart has a block of ${language:-no language}" ;;
		esac
		case $block in
		*"make build"*) continue ;; # they are built and installed
		*cte1....*) block=$token$'\n' ;; # what "token create" has printed
		*) ;;
		esac
		while IFS= read -r line; do
			case $line in
			*" status" | *" list") within 30 "$line" inside sh -c "$line" </dev/null ;;
			*) inside sh -c "$line" </dev/null >"$scratch/out" 2>&1 || { cat "$scratch/out" >&2; die "failed: $line"; } ;;
			esac
			printed=$(grep -m 1 '^ *echo cte1' "$scratch/out" || true)
			token=${printed:-$token}
			line=${line/cte1.* |/TOKEN |}
			printf '  ok: %s\n' "${line:0:70}"
		done < <(printf %s "$block" | sed -e ':a' -e '/\\$/N; s/\\\n *//; ta')
	done < <(blocks "$root/README.md")
	grep -q 'web.example.internal' "$scratch/out" || { cat "$scratch/out" >&2; die "the report does not show the certificate"; }
	[ "$(inside stat --format=%U:%a /etc/certctl)" = root:755 ] || die "/etc/certctl is not root's"
	inside test -s /etc/nginx/tls/web.pem || die "the certificate is not in its place"
	for s in "${services[@]}"; do inside "/usr/local/bin/$s" uninstall >"$scratch/out" 2>&1 || { cat "$scratch/out" >&2; die "uninstall $s"; }; done
	inside rm -rf /etc/certctl /root/.config/certctl /etc/nginx/tls /usr/local/bin/sudo /usr/local/bin/certctl \
		/var/lib/certctl-agent /var/lib/certctl-coordinator /var/lib/private/certctl-coordinator
}
if [ "${#services[@]}" -eq 2 ]; then quickstart; fi

for s in "${services[@]}"; do
	case $s in
	certctl-agent)
		verbs certctl-agent /etc/certctl/agent.yaml /var/lib/certctl-agent 30
		inside certctl-agent status >"$scratch/out" 2>&1 || { cat "$scratch/out" >&2; die "the agent does not answer on its socket"; }
		echo "  ok: the agent answers on its socket"
		sandbox
		gone certctl-agent /var/lib/certctl-agent
		;;
	certctl-coordinator)
		verbs certctl-coordinator /etc/certctl/coordinator.yaml /var/lib/certctl-coordinator 15
		gone certctl-coordinator /var/lib/certctl-coordinator
		;;
	*) die "unknown service $s" ;;
	esac
done
echo "test-systemd: all of it holds"
