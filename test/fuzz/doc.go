// Package fuzz builds random Dockerfiles in several ways that must agree.
//
//	seed ─Make─> Dockerfile, context ─┬─ fresh state, in order   ─┐
//	                                  ├─ again, warm              ├─> equal
//	                                  ├─ another state, reversed  │
//	                                  └─ BuildKit, if at hand    ─┘
//
// Dockerfiles are drawn from one grammar, so that those of many seeds share
// their beginnings and a key that says too little finds another one's layer. A
// build may fail; then it fails in every way.
package fuzz
