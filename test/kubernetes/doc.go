// Package kubernetes tests the runner of that name, and the Jobs of the examples, with a
// real cluster of one node:
//
//	hyper: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet ── containerd ── runc
//	   │ `make test-kubernetes` has test/k8s/hyper build it
//	kaniko-build apply ── with the rights of examples/kubernetes/role.yaml ──> pods
//	kubectl apply -f examples/kubernetes/job.yaml ──> Job ──> pod ── proxy ──> test/clouds/hosts
//
// All of it runs below one process in a process and a mount namespace of its own, and ends
// with that. Pods have no network but loopback, as those of a build need none; those
// of the examples have the node's.
//
// What pods are allowed is decided by the real admission, rights and Pod Security
// Standards of the API server; what becomes of them, by the real kubelet.
package kubernetes
