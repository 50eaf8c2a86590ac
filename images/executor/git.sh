#!/bin/sh
# Copies this machine's git (Debian's) with all that it needs into a folder that
# works as /kaniko/git in an image without a system: for http and https.
#
#	images/executor/git.sh FOLDER
set -eu

to=$1
from=$(git --exec-path)
place=/kaniko/git
rm -rf "$to"
mkdir -p "$to"
cp -L "$from/git" "$from/git-remote-http" "$to"
ln -s git-remote-http "$to/git-remote-https"
for library in $(ldd "$from/git" "$from/git-remote-http" | grep -o '/[^ ]*\.so[^ ]*' | sort -u); do
	cp -L "$library" "$to"
done

# The programs name their loader by its path. Another of the same length is put
# in its place, with slashes in front of its name.
loader=$(LC_ALL=C grep -aom1 '/lib[a-z0-9/_-]*/ld-linux[a-z0-9._-]*\.so\.[0-9]' "$from/git" | head -n 1)
cp -L "$loader" "$to/ld.so"
path=$place/ld.so
while [ ${#path} -lt ${#loader} ]; do
	path=$place/${path#"$place"}
done
for program in git git-remote-http; do
	LC_ALL=C sed -i "s|$loader|$path|" "$to/$program"
done
