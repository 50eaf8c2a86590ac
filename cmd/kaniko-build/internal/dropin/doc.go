// Package dropin is the command line of kaniko: its executor and warmer, with
// every flag of both of its generations.
//
//	flags, KANIKO_* ─> settings ─> executor.Request ─> executor ─> image
//	                      └─ context ─┘                   └─> digest files, tar, layout, registry
//
// A flag that kaniko has is accepted. One that has nothing to do here says so
// once. Where kaniko does by accident what hurts its users, this does what its
// documentation says; the list of changes names each such place.
//
// Outputs are written once, when everything has worked. The exit code of a RUN
// that fails is that of the program.
package dropin
