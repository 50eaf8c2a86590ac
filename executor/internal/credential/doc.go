// Package credential finds what to show to a registry.
//
//	docker config ─> env ─> google ─> ecr ─> acr ─> gitlab ─> nobody
//
// The first that knows the registry answers. The docker config is always asked;
// each of the others can be left out. Those of clouds ask the cloud for a token,
// by the identity that its own tools would find, and only for hosts of that
// cloud: patterns match whole names.
//
// Promises: a secret goes to the host it is for and into no message. The docker
// config is read anew each time; tokens are kept until shortly before they expire.
//
// Not promised: that an identity is there. Clouds have registries that anybody
// may read, so that finding none is nobody, not an error; having one and being
// refused is an error.
package credential
