package kubernetes

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"kaniko-build/executor"
	"kaniko-build/test/rig"
)

// partsEnv names the program of test/k8s/parts.
const partsEnv = "KANIKO_BUILD_TEST_KUBERNETES_PARTS"

// parts starts Kubernetes' own code for an exec and a pod.
func parts(t *testing.T) (addr string) {
	t.Helper()
	program := os.Getenv(partsEnv)
	if program == "" {
		t.Skip(partsEnv + " names no program; `make test` builds it")
	}
	return "http://" + rig.StartServer(t, func(addr string) *exec.Cmd { return exec.Command(program, addr) }, rig.Listens)
}

// TestExecOfKubernetes has an exec go through Kubernetes' own code, both ways that there
// are: from the API server on by SPDY, and as it is to the kubelet.
func TestExecOfKubernetes(t *testing.T) {
	at := parts(t)
	for way, protocol := range map[string]string{"translated": "v5.channel.k8s.io", "direct": "v4.channel.k8s.io"} {
		t.Run(way, func(t *testing.T) {
			k := newClient(&config{server: at + "/" + way, tls: &tls.Config{}})
			k.namespace = "builds"
			s, err := k.exec(t.Context(), "pod", []string{"one", "two words"})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if got := s.ws.Subprotocol(); got != protocol {
				t.Errorf("protocol %s, want %s", got, protocol)
			}
			in := bufio.NewReader(s)
			if line, err := in.ReadString('\n'); err != nil || line != "one two words\n" {
				t.Fatalf("%q, %v", line, err)
			}
			big := strings.Repeat("0123456789abcdef", 1<<20) + "\n" // 16 MiB
			wrote := make(chan error)
			go func() { _, err := io.WriteString(s, big); wrote <- err }()
			if got, err := in.ReadString('\n'); err != nil || got != big {
				t.Errorf("%d bytes came back, %v", len(got), err)
			}
			if err := <-wrote; err != nil {
				t.Error(err)
			}
			f, err := k.exec(t.Context(), "pod", []string{"fail"})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			all, err := io.ReadAll(f)
			if string(all) != "fail\n" || !strings.Contains(f.said(), "it said why") || !strings.Contains(f.said(), "no such file") {
				t.Errorf("%q, %v; it said %q", all, err, f.said())
			}
		})
	}
}

// TestPodKeepsToBaseline has Kubernetes' own code read a pod, and say which Pod Security
// Standards it keeps to.
func TestPodKeepsToBaseline(t *testing.T) {
	at := parts(t)
	r := &Runner{ServiceAccount: "builder", PullSecrets: []string{"pull"}, Tolerations: []Toleration{{Key: "builds", Operator: "Exists", Effect: "NoSchedule"}}}
	full, err := json.Marshal(r.pod(t.Context(), executor.Site{Node: "api", Platform: "linux/amd64", Arches: []string{"amd64"}, Resources: executor.Resources{MilliCPU: 500, Memory: 1 << 30}}))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		level, pod string
		code       int
		says       string
	}{
		{"baseline", string(full), http.StatusOK, ""},
		{"restricted", string(full), http.StatusForbidden, "runAsNonRoot"}, // steps are root of their container
		{"baseline", strings.Replace(string(full), `"restartPolicy"`, `"restartpolicies"`, 1), http.StatusUnprocessableEntity, "restartpolicies"},
	} {
		res, err := http.Post(at+"/pod/"+tc.level, "application/json", bytes.NewReader([]byte(tc.pod)))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != tc.code || !strings.Contains(string(b), tc.says) {
			t.Errorf("%s: %s: %s, %v", tc.level, res.Status, b, err)
		}
	}
}
