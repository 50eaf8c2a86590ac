// Package registrytest runs a real registry for tests: Debian's docker-registry
// on a free port of 127.0.0.1, with a directory of its own.
//
//	Start(t, Options{}) ──> Registry.Host "127.0.0.1:40123" ──> stopped with t
//
// It is stopped by its process id, also when the test fails. It needs the Debian
// package docker-registry; Start skips the test with that sentence if it is
// missing.
package registrytest
