package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kaniko-build/executor"
	"kaniko-build/executor/runner/kubernetes"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// podJobs is how many steps execute at once in a cluster, where nobody says: the cluster
// decides how many pods there is room for.
const podJobs = 32

// newPod is what runs in the pods of the runner kubernetes.
func newPod(t terminal) *cobra.Command {
	attach, rung := false, ""
	c := &cobra.Command{
		Use: kubernetes.Command, Short: "Build a node in this pod, for a runner", Hidden: true,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if attach {
				return kubernetes.Attach(c.Context(), t.in, t.out)
			}
			return kubernetes.Serve(c.Context(), version, rung)
		},
	}
	c.Flags().BoolVar(&attach, strings.TrimPrefix(kubernetes.AttachFlag, "--"), false, "connect standard input and output with the build")
	c.Flags().StringVar(&rung, strings.TrimPrefix(kubernetes.RungFlag, "--"), "", "how RUN steps are isolated: "+strings.Join(kubernetes.Rungs(), " or ")+" (default: the best there is)")
	return c
}

// afar tells whether nodes are built on other machines.
func (f *runFlags) afar() bool { return f.runner == "kubernetes" }

// cluster is what a manifest says of pods.
type cluster struct{ schema.Runner }

// runner makes them of image, if it is not "".
func (c cluster) runner(image string) *kubernetes.Runner {
	r := &kubernetes.Runner{
		Image: image, Context: c.Context, Namespace: c.Namespace, ServiceAccount: c.ServiceAccount, NodeSelector: c.NodeSelector,
		PullSecrets: c.ImagePullSecrets, StartTimeout: c.StartTimeout, Version: version, Getenv: os.Getenv, Environ: os.Environ,
	}
	if r.Image == "" {
		r.Image = c.Image
	}
	for _, t := range c.Tolerations {
		r.Tolerations = append(r.Tolerations, kubernetes.Toleration{Key: t.Key, Operator: t.Operator, Value: t.Value, Effect: t.Effect})
	}
	if c.Pos != (diag.Pos{}) {
		r.At = c.Pos.String()
	}
	return r
}

// doctor tells whether the cluster can be reached, which rights are missing, and how RUNs
// are isolated in a pod.
func (c cluster) doctor(ctx context.Context, t terminal) error {
	found, err := c.runner("").Report(ctx)
	if found.Server != "" {
		from := "by this pod's service account"
		if found.Context != "" {
			from = "context " + found.Context
		}
		fmt.Fprintf(t.out, "cluster    %s, %s, namespace %s\n", found.Server, from, found.Namespace)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(t.out, "           Kubernetes %s\n", found.Version)
	for _, r := range kubernetes.Rights() {
		mark := "yes"
		if slices.Contains(found.Missing, r) {
			mark = "MISSING"
		}
		fmt.Fprintf(t.out, "right      %-16s %s\n", r, mark)
	}
	if len(found.Missing) > 0 {
		return &executor.MachineError{What: fmt.Sprintf("this user may not do all that builds need in namespace %s", found.Namespace), Remedy: "examples/kubernetes/role.yaml gives these rights, and no others"}
	}
	r := c.runner("")
	r.StartTimeout = cmp.Or(r.StartTimeout, doctorTime)
	got, err := r.Try(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(t.out, "isolation  %s, in a pod that was started\n", got)
	for _, s := range []struct{ head, text string }{{"", got.Walk}, {"", got.Why}, {"remedy: ", got.Remedy}} {
		if s.text != "" {
			fmt.Fprintf(t.out, "           %s%s\n", s.head, s.text)
		}
	}
	return nil
}

// doctorTime is how long a pod of doctor's may take to run, where nobody says.
const doctorTime = 2 * time.Minute

// clusterHere is the cluster of the manifest that is found here, if there is one and it
// has its images built in pods.
func clusterHere(ctx context.Context) (cluster, bool) {
	w, err := (&manifestFlags{}).read(ctx)
	if err != nil {
		return cluster{}, false // check tells what is wrong with it
	}
	return cluster{w.manifest.Runner}, w.manifest.Runner.Type == "kubernetes"
}

var errNoDoctor = errors.New("doctor asks about the runners local and kubernetes\n  hint: of docker, docker info tells whether it runs")
