// Command parts serves what Kubernetes' own code says of an exec and of a pod, without a
// cluster, which takes a hundred times as long to build.
//
//	/translated/…  exec as API servers have it: WebSocket outside, SPDY to /direct
//	/direct/…      exec as kubelets have it: WebSocket or SPDY; what comes in goes out again
//	/pod/LEVEL     a pod, decoded strictly: 422 for an unknown field, 403 if the Pod
//	               Security Standard LEVEL forbids it
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	protocols "k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/client-go/tools/remotecommand"
	server "k8s.io/kubelet/pkg/cri/streaming/remotecommand"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/json"
)

// echo is a runtime whose commands give back what they read, after their own words.
type echo struct{}

func (echo) ExecInContainer(_ context.Context, _ string, _ types.UID, _ string, cmd []string, in io.Reader, out, errs io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
	fmt.Fprintln(out, strings.Join(cmd, " "))
	if cmd[0] == "fail" {
		fmt.Fprintln(errs, "it said why")
		return fmt.Errorf("no such file")
	}
	_, err := io.Copy(out, in)
	return err
}

// pod says what is wrong with a pod.
func pod(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	var p corev1.Pod
	if err == nil {
		var strict []error
		if strict, err = json.UnmarshalStrict(b, &p); err == nil && len(strict) > 0 {
			err = strict[0]
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	level := api.LevelVersion{Level: api.Level(r.PathValue("level")), Version: api.LatestVersion()}
	if found := policy.AggregateCheckResults(evaluator.EvaluatePod(level, &p.ObjectMeta, &p.Spec)); !found.Allowed {
		http.Error(w, found.ForbiddenDetail(), http.StatusForbidden)
	}
}

func main() {
	l, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	http.HandleFunc("/translated/", func(w http.ResponseWriter, r *http.Request) {
		at := &url.URL{Scheme: "http", Host: l.Addr().String(), Path: "/direct/", RawQuery: r.URL.RawQuery}
		proxy.NewStreamTranslatorHandler(at, http.DefaultTransport, 0, proxy.Options{Stdin: true, Stdout: true, Stderr: true}).ServeHTTP(w, r)
	})
	http.HandleFunc("/direct/", func(w http.ResponseWriter, r *http.Request) {
		server.ServeExec(w, r, echo{}, "pod", "", "node", r.URL.Query()["command"], &server.Options{Stdin: true, Stdout: true, Stderr: true},
			time.Hour, time.Minute, protocols.SupportedStreamingProtocols)
	})
	http.HandleFunc("POST /pod/{level}", pod)
	fmt.Fprintln(os.Stderr, http.Serve(l, nil))
	os.Exit(1)
}
