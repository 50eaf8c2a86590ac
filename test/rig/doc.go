// Package rig is what the tests of the whole program stand on: the binary,
// accounts to run it from, registries to pull from and push to.
//
//	Binary ──> Account.Run(kaniko-build …) ──> Output (text, exit code)
//	               │ root, a user with a subuid range, a user without
//	               ├──> Registry: Debian's docker-registry on a free loopback port
//	               ├──> Space: a directory that the account owns, swept at the end
//	               └──> Docker: an engine of its own, that runs default containers
//
// Everything it starts ends with the test. Tests that need root or a Debian
// package fail with the name of what is missing; `make test` installs it.
package rig
