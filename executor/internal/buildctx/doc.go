// Package buildctx is where a build reads from: directories filtered by
// .dockerignore, files from the web, git repositories.
//
//	directory + .dockerignore ── Open ──> Dir (a tree.Tree)
//	https://…/file           ── Fetch ──> a directory with one file ─┐
//	https://…/x.git#ref:sub  ── Clone ──> a directory ───────────────┴─> a tree.Tree
//	tar, stdin, bucket, git  ── Directory ──> a directory, to be opened
//	tree.Tree ── Hasher.Hash ──> what is in a file, remembered over builds
//
// A context is what COPY and ADD read from. To ignore a file is to make it not
// exist. A sum stands for the content and the extended attributes of a file.
//
// Promises: a Dir shows what BuildKit would have transferred, owned by 0:0, and
// reads only what is asked for; no lookup leaves the directory. What is fetched
// is whole or absent, whatever kills us, and checked against the checksum that
// was asked for. A sum is never taken from memory if the file could have
// changed within the resolution of its time stamps.
//
// Not promised: a snapshot. A Dir shows the files as they are when looked at.
package buildctx
