// Package e2e uses the program as people do: it builds the shop, pushes it,
// pulls it back with other tools and runs it; counts what a no-op starts; kills
// builds and looks for what they leave.
//
//	examples/shop ─apply --push─> docker-registry ─skopeo─> umoci ─crun─> its service answers
//
// Everything is done from three accounts: root, a user with a range of
// subordinate ids, and a user without.
package e2e
