// Package schema reads the manifest, kaniko-build.yaml: what was written, with
// the place of every value.
//
// Words: a manifest holds targets (images to build), templates (parents of
// targets, never built) and groups (names for several targets). A body is what a
// target, a template or the defaults say. A reference is ${namespace.name}; a
// ref is the full name of an image, repository:tag. A unit is a file with what is
// merged over it: the root with its override file, files of -f and active profiles,
// or an included file. A stack is a body in layers, one for each of these. A cell is
// one target of a matrix.
//
//	text --readYAML--> value --shape.check--> units --stacks--> cells --merger--> one body a target
//	                     loader: include, profiles                                 |
//	                     vars, env, git, ci --expander, condition------------------^
//	                                                           Manifest <--decode--+
//
// A value is one YAML value with its position. A shape says what may stand in a
// place (language.go is the table of all of them; JSONSchema is made of it). A merger
// lays bodies over each other: defaults, then each parent once, left to right and
// depth first, then the target's own, the cell's and those of flags. An expander
// replaces references, but only in what is left after merging, so that an overridden
// value is never asked for; what only a build can know stays in the text, for Expand.
// A name is looked up in the unit that wrote it, then in those that include it.
//
// Parse reads files only from the fs.FS it is given, the environment and git only
// through functions, and nothing else; the same input gives the same Manifest.
// It reports all mistakes of a manifest at once, as diag.Problems. A key of the
// language that is not built yet is an error that says so; no key is ignored, but
// for those that start with "x-", which are the user's own.
//
// A Manifest does not change after Parse. Whether directories, Dockerfiles and
// registries exist, and in what order targets are built, is for other packages.
package schema
