// Package fuzz builds random Dockerfiles in several ways that must agree.
//
//	seed ─Make─> Dockerfile, context ─┬─ fresh state, in order   ─┐
//	                                  ├─ again, warm              ├─> equal
//	                                  ├─ another state, reversed  │
//	                                  └─ BuildKit, if at hand    ─┘
//
// Dockerfiles are drawn from two grammars. The narrow one has few names, so that
// those of many seeds share their beginnings and a key that says too little finds
// another one's layer. The wide one, from seed firstWide on, has the whole
// language: archives, URLs, git, mounts of every type, named contexts, odd files
// in contexts and images. A build may fail; then it fails in every way.
//
// # Faults of BuildKit
//
// Where only one of the two builds, and it is one of these, it is not counted
// against us (v0.34.2):
//
//   - COPY dir/none* of a context: a wildcard may match nothing, and does no harm
//     in a stage. But a client sends only what the instructions select, so that
//     dir itself is missing unless another COPY selects something in it: "lstat
//     /dir: no such file or directory".
//   - COPY --exclude=x . /: links directly in the source are followed to compute
//     the key, although the link itself is copied. One that leads nowhere: "not
//     found". Without --exclude it is copied.
//   - COPY --parents --from=base /missing /, where base is what the stage starts
//     from and nothing changed it: what --parents requires is looked for when
//     the source's checksum is taken, and a file operation that reads and writes
//     one state takes none. It builds, and copies nothing.
//
// Not everything is drawn where BuildKit's own result depends on more than
// Dockerfile and context: a fifo's other end, caches that two stages share.
package fuzz
