// Package property edits random monorepos and builds them after each edit.
//
//	seed ─Make─> Repo ─Edit─> Repo' ─┬─ one store for all rounds ──> digests, steps that ran
//	                                 └─ a fresh store ─────────────> the same digests
//
// A Repo is several images on each other, in a language small enough that what
// each step depends on can be told from the outside (Repo.Keys): a step that ran
// before with the same of it must not run again. All images are reproducible, so
// that equal digests are equal entries, configuration and history.
package property
