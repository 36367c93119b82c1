#!/bin/bash
# Types docs/install.md on this machine, line by line, and sees whether the QPU becomes ready and a store survives the update.
# For a bare Debian 12 that is thrown away afterwards, without a running systemd: it changes /etc, /opt, /usr/local and /var.
set -euo pipefail
[ "$(id -u)" = 0 ] && [ ! -e /run/systemd/system ] && [ ! -e /etc/warden ] || { echo "not on this machine" >&2; exit 2; }
here=$(dirname "$(readlink -f "$0")")
cd "$here/../.."

# What each Debian has, and a bare one lacks: systemd's own tools, and a Python for reading the page.
apt-get -qq update
apt-get -qq install -y --no-install-recommends systemd python3 >/dev/null
# Nothing runs as process 1 here that would start units, so this does it, from the units as they were written.
install -m 755 "$here/systemctl" /usr/local/bin/systemctl
trap 'systemctl stop warden-worker warden munge; wait' EXIT

python3 "$here/type_install_page.py" docs/install.md >/root/typed.sh
bash /root/typed.sh

echo "== the QPU has to become ready"
for _ in $(seq 60); do
  case $(qpu status --json) in *'"ready"'*) ready=yes; break ;; esac
  sleep 1
done
[ "${ready:-}" = yes ] || { echo "it did not:" >&2; qpu status >&2; cat /var/log/journal-of-*; exit 1; }
qpu status
ls -ld /etc/warden /etc/warden/keys /var/lib/warden /run/warden /var/log/warden /etc/warden/keys/*.key_secret
[ -z "$(find /var/lib/warden -mindepth 1 -type d)" ] || { echo "somebody made himself at home in /var/lib/warden" >&2; exit 1; }
man -w warden 2>/dev/null || ls -l /usr/local/share/man/man1/warden.1
echo "== and what is installed is gone again"
systemctl stop warden-worker warden
warden install-units --remove
