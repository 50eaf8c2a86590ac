package kubernetes

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"kaniko-build/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// hyperEnv names the program that is a whole Kubernetes.
const hyperEnv = "KANIKO_BUILD_TEST_KUBERNETES"

// members starts the programs as children of process 1 of a pid and a mount namespace:
// whatever they and their containers leave ends with it. $1 is the cluster's directory.
const members = `
set -eu
R=$1
mount --make-rprivate /
mount --make-rshared /
mount -t proc proc /proc
for d in /run /var/log /var/lib; do mount -t tmpfs -o mode=755 tmpfs $d; done
mkdir -p /var/lib/kubelet /var/lib/cni
"$R/hyper" etcd --data-dir "$R/etcd" --unsafe-no-fsync --log-level error \
	--listen-client-urls "http://127.0.0.1:$ETCD" --advertise-client-urls "http://127.0.0.1:$ETCD" \
	--listen-peer-urls "http://127.0.0.1:$PEER" --initial-advertise-peer-urls "http://127.0.0.1:$PEER" --initial-cluster "default=http://127.0.0.1:$PEER" &
"$R/hyper" kube-apiserver --etcd-servers="http://127.0.0.1:$ETCD" --bind-address=127.0.0.1 --secure-port="$API" --advertise-address=127.0.0.1 \
	--endpoint-reconciler-type=none --cert-dir="$R/pki" --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$R/sa.pub" \
	--service-account-signing-key-file="$R/sa.key" --token-auth-file="$R/tokens.csv" --authorization-mode=RBAC --service-cluster-ip-range=10.0.0.0/24 &
containerd --config "$R/containerd.toml" &
read -r _ <"$R/up" # the API server answers
"$R/hyper" kube-controller-manager --kubeconfig="$R/admin" --leader-elect=false --bind-address=127.0.0.1 --secure-port="$MANAGER" --cert-dir="$R/pki1" \
	--service-account-private-key-file="$R/sa.key" --root-ca-file="$R/pki/apiserver.crt" \
	--controllers=job-controller,namespace-controller,serviceaccount-controller,serviceaccount-token-controller,garbage-collector-controller,pod-garbage-collector-controller,ttl-after-finished-controller,root-ca-certificate-publisher-controller,node-lifecycle-controller,taint-eviction-controller,resourcequota-controller &
"$R/hyper" kube-scheduler --kubeconfig="$R/admin" --leader-elect=false --bind-address=127.0.0.1 --secure-port="$SCHEDULER" --cert-dir="$R/pki2" &
until ctr -a "$R/containerd.sock" version >/dev/null 2>&1; do sleep 0.1; done
for i in pause executor; do ctr -a "$R/containerd.sock" -n k8s.io images import "$R/$i.tar"; done
"$R/hyper" kubelet --config="$R/kubelet.yaml" --kubeconfig="$R/admin" --root-dir="$R/kubelet" --cert-dir="$R/pki3" --hostname-override=localhost &
wait
`

// isolated is a network plugin: pods have a namespace with loopback and an interface that
// leads nowhere.
const isolated = `#!/bin/sh
set -eu
A=192.0.2.10
case $CNI_COMMAND in
ADD)
	nsenter --net="$CNI_NETNS" sh -c "ip link add $CNI_IFNAME type bridge; ip addr add $A/24 dev $CNI_IFNAME; ip link set $CNI_IFNAME up; ip link set lo up"
	echo '{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}],"ips":[{"version":"4","interface":0,"address":"'$A'/24"}]}'
	;;
VERSION) echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}' ;;
esac
`

const containerdConfig = `version = 2
root = "%[1]s/ctd/root"
state = "%[1]s/ctd/state"
disabled_plugins = ["io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "%[1]s/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost:5000/test/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%[1]s/cnibin"
    conf_dir = "%[1]s/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
`

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
address: 127.0.0.1
port: %[2]d
healthzBindAddress: 127.0.0.1
healthzPort: %[3]d
readOnlyPort: 0
containerRuntimeEndpoint: unix://%[1]s/containerd.sock
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
failSwapOn: false
oomScoreAdj: 0
enforceNodeAllocatable: []
evictionHard: {memory.available: "0%%", nodefs.available: "0%%", imagefs.available: "0%%"}
imageGCHighThresholdPercent: 100
podLogsDir: %[1]s/podlogs
volumePluginDir: %[1]s/volplugins
resolvConf: /etc/resolv.conf
`

// cluster is a real one, of one node.
type cluster struct {
	dir   string
	api   string // address
	admin string // a kubeconfig
}

const adminToken = "admin-of-the-test"

// startCluster starts a cluster that ends with the test. It has our executor image.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	rig.NeedRoot(t)
	hyper := os.Getenv(hyperEnv)
	if hyper == "" {
		t.Skip(hyperEnv + " names no program; `make test-kubernetes` builds it, in some 15 minutes, and runs this")
	}
	for program, pkg := range map[string]string{"containerd": "containerd", "runc": "runc", "ctr": "containerd", "ip": "iproute2", "/usr/lib/cni/loopback": "containernetworking-plugins"} {
		rig.Need(t, program, pkg)
	}
	c := &cluster{dir: rig.Space(t, nil)}
	ports := heldPorts(t, 7)
	c.api = fmt.Sprintf("127.0.0.1:%d", ports[2])
	c.admin = filepath.Join(c.dir, "admin")
	key, public := signingKey(t)
	files := map[string]string{
		"sa.key": key, "sa.pub": public, "tokens.csv": adminToken + ",admin,admin,system:masters\n",
		"containerd.toml": fmt.Sprintf(containerdConfig, c.dir), "kubelet.yaml": fmt.Sprintf(kubeletConfig, c.dir, ports[5], ports[6]),
		"cni/10-isolated.conflist": `{"cniVersion":"0.4.0","name":"isolated","plugins":[{"type":"isolated"}]}`, "admin": c.kubeconfig(adminToken, "default"),
	}
	rig.Write(t, c.dir, files)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Symlink(hyper, filepath.Join(c.dir, "hyper")))
	must(os.Mkdir(filepath.Join(c.dir, "cnibin"), 0o755))
	must(os.WriteFile(filepath.Join(c.dir, "cnibin", "isolated"), []byte(isolated), 0o755))
	must(os.Symlink("/usr/lib/cni/loopback", filepath.Join(c.dir, "cnibin", "loopback")))
	must(syscall.Mkfifo(filepath.Join(c.dir, "up"), 0o600))
	c.images(t)

	log, err := os.Create(filepath.Join(c.dir, "log"))
	must(err)
	cmd := exec.Command("/bin/sh", "-c", members, "sh", c.dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = os.Environ()
	for i, name := range []string{"ETCD", "PEER", "API", "MANAGER", "SCHEDULER"} {
		cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", name, ports[i]))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	started, done := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // it is killed when the thread ends that started it
		defer runtime.UnlockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	must(<-started)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done // its namespaces and all that ran in them are gone
		log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("the cluster says:\n%s", rig.Output{Stdout: string(b)}.Tail(60))
		}
		removeCgroups(t)
	})
	c.ready(t, done)
	must(os.WriteFile(filepath.Join(c.dir, "up"), []byte("up\n"), 0o600))
	c.must(t, "wait", "--for=create", "node/localhost", "--timeout=180s")
	c.must(t, "wait", "--for=condition=Ready", "node/localhost", "--timeout=180s")
	return c
}

// kubeconfig is one for a token.
func (c *cluster) kubeconfig(token, namespace string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
clusters: [{name: c, cluster: {server: "https://%s", certificate-authority: %s/pki/apiserver.crt}}]
contexts: [{name: test, context: {cluster: c, user: u, namespace: %s}}]
users: [{name: u, user: {token: %s}}]
`, c.api, c.dir, namespace, token)
}

// executorHere is rig.ExecutorImage by a name that no kubelet pulls again by itself.
const executorHere = "localhost:5000/test/executor:1"

// images makes the archives of the images that the node has from the start.
func (c *cluster) images(t *testing.T) {
	t.Helper()
	a := rig.NewAccount(t, rig.Superuser)
	files := rig.Space(t, nil)
	rig.Write(t, files, map[string]string{"Dockerfile": "FROM scratch\nCOPY busybox /busybox\nENTRYPOINT [\"/busybox\", \"sleep\", \"1000000\"]\n"})
	for name, from := range map[string]string{"kaniko-build": rig.Binary(t), "busybox": "/bin/busybox", "ca-certificates.crt": "/etc/ssl/certs/ca-certificates.crt"} {
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(files, name), b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	env := rig.Call{Env: []string{"KANIKO_BUILD_STATE=" + filepath.Join(a.Home, "state")}}
	a.Must(t, env, rig.Binary(t), "build", "-t", "localhost:5000/test/pause:1", "--image-format", "docker", "-o", "type=docker,dest="+filepath.Join(c.dir, "pause.tar"), files)
	a.Must(t, env, rig.Binary(t), "build", "-f", filepath.Join(rig.Root(t), "images", "executor", "Dockerfile"), "--target", "executor",
		"-t", rig.ExecutorImage, "-t", executorHere, "--image-format", "docker", "-o", "type=docker,dest="+filepath.Join(c.dir, "executor.tar"), files)
}

// ready waits until the API server answers.
func (c *cluster) ready(t *testing.T, done <-chan struct{}) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}, Timeout: 5 * time.Second}
	deadline, tick := time.After(5*time.Minute), time.NewTicker(200*time.Millisecond)
	defer tick.Stop()
	for {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+c.api+"/readyz", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+adminToken)
		if res, err := client.Do(r); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-tick.C:
		case <-done:
			t.Fatal("the cluster ended")
		case <-deadline:
			t.Fatal("the API server does not answer")
		}
	}
}

// kubectl runs kubectl as the administrator.
func (c *cluster) kubectl(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(c.dir, "hyper"), append([]string{"kubectl", "--kubeconfig", c.admin}, args...)...)
	cmd.Args[0] = "hyper"
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

func (c *cluster) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.kubectl(t, "", args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// apply has kubectl apply a text.
func (c *cluster) apply(t *testing.T, text string) {
	t.Helper()
	if out, err := c.kubectl(t, text, "apply", "-f", "-"); err != nil {
		t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
}

func heldPorts(t *testing.T, n int) []int {
	t.Helper()
	var out []int
	for range n {
		out = append(out, int(netip.MustParseAddrPort(rig.HoldPort(t)).Port()))
	}
	return out
}

// signingKey is what tokens of service accounts are signed with.
func signingKey(t *testing.T) (private, public string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a, err := x509.MarshalECPrivateKey(k)
	b, err2 := x509.MarshalPKIXPublicKey(k.Public())
	if err = errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: a})), string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b}))
}

// removeCgroups removes those that the kubelet made for pods.
func removeCgroups(t *testing.T) {
	t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/kubepods", "/sys/fs/cgroup/*/kubepods"} {
		tops, _ := filepath.Glob(pattern)
		for _, top := range tops {
			var dirs []string
			_ = filepath.WalkDir(top, func(p string, e fs.DirEntry, err error) error {
				if err == nil && e.IsDir() {
					dirs = append(dirs, p)
				}
				return nil
			})
			for _, p := range slices.Backward(dirs) {
				for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) { // processes in it are just ending
					if err := syscall.Rmdir(p); err == nil || errors.Is(err, syscall.ENOENT) {
						break
					} else if time.Now().After(deadline) {
						t.Errorf("rmdir %s: %v", p, err)
						break
					}
				}
			}
		}
	}
}
