// Package clouds builds from contexts in buckets and repositories, each served
// by an emulator of its cloud with that cloud's own protocol.
//
//	fake-gcs-server ── gs://, --bucket ─┐
//	s3rver          ── s3://            │
//	Azurite (TLS)   ── https://…blob…   ├── executor ──> one digest
//	git-http-backend── git://           │
//	TLS server      ── https://….tar.gz ┘
//
// TestPods runs whole pods in Docker's default container, beside clouds that also give tokens
// and keep images: hosts, which a real cluster has too, in test/kubernetes.
//
// `make emulators` puts them into .cache/emulators.
package clouds
