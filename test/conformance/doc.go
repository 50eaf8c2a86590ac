// Package conformance builds every case of the corpus in this directory with
// kaniko-build and compares the image with the golden that BuildKit made.
//
//	cases/NAME ─Prepare─> a directory ─kaniko-build build, cold─> OCI tar ─Describe─┐
//	                                   kaniko-build build, warm─> OCI tar ─Describe─┼─> differences
//	cases/NAME/golden.json ─────────────────────────────────────────────────────────┘
//
// Every case runs on every rung, as root, as a user with a range of ids and as
// a user without. What a rung cannot do is in exceptions.yaml, with the reason,
// and an exception that passes is a failure too. README.md has the format of
// the cases, NOTES.md what BuildKit does that one would not expect.
package conformance
