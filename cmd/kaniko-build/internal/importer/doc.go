// Package importer makes a manifest of what other programs build images from.
//
//	docker-bake.hcl ── bake ────┐
//	compose.yaml ───── compose ─┼─> Draft ─ Write ─> kaniko-build.yaml
//	skaffold.yaml ──── skaffold ┘      └─ Notes ───> what was left out, and where it stood
//
// A Draft says what the source said and no more: what is a default here is left out.
// Whatever cannot be said is a Note with the place in the source; nothing is
// dropped in silence. Sources are read and never run; variables have their defaults.
package importer
