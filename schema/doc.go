// Package schema reads the manifest, kaniko-build.yaml: what was written, with
// the place of every value.
//
// Words: a manifest holds targets (images to build), templates (parents of
// targets, never built) and groups (names for several targets). A body is what a
// target, a template or the defaults say. A reference is ${namespace.name}; a
// ref is the full name of an image, repository:tag.
//
//	text --readYAML--> value --shape.check--> bodies --merger--> one body a target
//	                                 vars, env, git --expander--^      |
//	                                          Manifest <--decode------+
//
// A value is one YAML value with its position. A shape says what may stand in a
// place (language.go is the table of all of them). A merger lays bodies over each
// other: defaults, then each parent once, left to right and depth first, then the
// target's own. An expander replaces references, but only in what is left after
// merging, so that an overridden value is never asked for.
//
// Parse reads files only from the fs.FS it is given, the environment and git only
// through functions, and nothing else; the same input gives the same Manifest.
// It reports all mistakes of a file at once, as diag.Problems. A key of the
// language that is not built yet is an error that says so; no key is ignored, but
// for those that start with "x-", which are the user's own.
//
// A Manifest does not change after Parse. Whether directories, Dockerfiles and
// registries exist, and in what order targets are built, is for other packages.
package schema
