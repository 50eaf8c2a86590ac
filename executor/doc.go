// Package executor builds one image: the core that runs a Dockerfile's stages
// and steps, and what surrounds it.
//
//	Request ─ Inspect ─> Facts: stages, keys, hit or miss          (outside, nothing runs)
//	             │ miss
//	             ▼
//	        Runner: one unprivileged container ── Core ─> Events, layers and keys in the store
//	             │                                 ▲ files of the context, base blobs, secrets: through Host
//	             ▼
//	Facts ─ Finish ─> Result: config and manifest in the store ─ Push, Export
//
// Inspect, Finish, Push and Export run outside the container, with the user's
// credentials; the Core runs inside and has none. When every key of a node is
// in the store no container is started.
//
// A Request, a Result and the events are plain data. What a build makes is
// entry for entry what BuildKit makes of the same Dockerfile; a warm build
// equals a cold one but for file times.
package executor
