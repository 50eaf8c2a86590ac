#!/bin/sh
# Runs in a copy of this directory before the build.
chmod 1777 context/dir
chmod 2750 context/up/in
mkdir 'context/a*b' 'context/a-b'
touch 'context/a*b/star' 'context/a-b/dash'
ln -s dir context/lnk
touch -d @1500000000 context/dir context/up/in
