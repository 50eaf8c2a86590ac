// Package mirror makes the base images that examples, tests and benchmarks
// start from, out of Debian's packages and the installed Go, for a machine that
// reaches no hub.
//
//	debootstrap ──> debian:bookworm-slim ─┐
//	  + apt-get, GOROOT ─> golang:1.26   ─┼─> one OCI layout each, kept by recipe ─Push─> REGISTRY/library/…
//	busybox-static ──> busybox:latest    ─┘
//
// They hold what users of the images of those names expect to find: the same
// base system, paths, accounts, variables and tools, not the same bytes. Making
// them takes root and some minutes; what was made by the same recipe is there
// at once.
package mirror
