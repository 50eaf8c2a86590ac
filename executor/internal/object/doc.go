// Package object reads single objects of buckets in clouds.
//
//	gs://bucket/object                          ─┐
//	s3://bucket/key                              ├─ Open ──> bytes
//	https://account.blob.core.windows.net/c/blob ─┘
//
// An address names a bucket and an object in it; without an object it is
// DefaultName, as kaniko has it. Credentials are those that each cloud's own
// tools would find; addresses hold none.
//
// Promises: an object that is missing or forbidden is a *diag.Problem that says
// which credentials were tried. Nothing is written and nothing is kept.
//
// Not promised: that a download which breaks goes on. It is an error of Read.
//
// Google's storage client was left out: it brings grpc and twenty megabytes into
// the binary for one GET. Its credentials come from the oauth2 package.
package object
