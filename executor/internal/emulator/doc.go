// Package emulator finds what runs programs of other architectures: a handler
// that the kernel has, or a static QEMU that may be registered as one.
//
//	arm64 ─ Handled? ─ yes ─> nothing to do: the host's binfmt_misc has it
//	            └ no ─ Find ─> /usr/bin/qemu-aarch64-static ─ Line ─> binfmt_misc of the node's user namespace
//
// Since Linux 6.7 binfmt_misc belongs to a user namespace: whoever may mount in
// one registers handlers there, and nobody outside has them
// (Documentation/admin-guide/binfmt-misc.rst). A namespace with a binfmt_misc of
// its own does not see its parent's, so all that is needed is registered then.
//
// Architectures are GOARCH's names, as OCI platforms have them. The package
// registers nothing itself.
package emulator
