package kubernetes

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"kaniko-build/executor"
)

// The parts of a pod that are written and read here.
type pod struct {
	APIVersion string    `json:"apiVersion,omitempty"`
	Kind       string    `json:"kind,omitempty"`
	Metadata   metadata  `json:"metadata"`
	Spec       podSpec   `json:"spec"`
	Status     podStatus `json:"status,omitzero"`
}

type metadata struct {
	Name            string            `json:"name,omitempty"`
	GenerateName    string            `json:"generateName,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
	Annotations     map[string]string `json:"annotations,omitempty"`
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Deleted         *time.Time        `json:"deletionTimestamp,omitempty"`
}

type podSpec struct {
	RestartPolicy      string            `json:"restartPolicy"`
	ActiveDeadline     *int64            `json:"activeDeadlineSeconds,omitempty"` // seconds
	GracePeriod        *int64            `json:"terminationGracePeriodSeconds,omitempty"`
	ServiceAccount     string            `json:"serviceAccountName,omitempty"`
	MountToken         *bool             `json:"automountServiceAccountToken,omitempty"`
	EnableServiceLinks *bool             `json:"enableServiceLinks,omitempty"`
	NodeSelector       map[string]string `json:"nodeSelector,omitempty"`
	Tolerations        []Toleration      `json:"tolerations,omitempty"`
	ImagePullSecrets   []named           `json:"imagePullSecrets,omitempty"`
	Containers         []podContainer    `json:"containers"`
}

type named struct {
	Name string `json:"name"`
}

type podContainer struct {
	Name                     string       `json:"name"`
	Image                    string       `json:"image"`
	ImagePullPolicy          string       `json:"imagePullPolicy,omitempty"`
	Command                  []string     `json:"command,omitempty"`
	Resources                podResources `json:"resources,omitzero"`
	TerminationMessagePolicy string       `json:"terminationMessagePolicy,omitempty"`
}

type podResources struct {
	Requests map[string]string `json:"requests,omitempty"`
	Limits   map[string]string `json:"limits,omitempty"`
}

type podStatus struct {
	Phase      string `json:"phase,omitempty"`
	Reason     string `json:"reason,omitempty"`
	Message    string `json:"message,omitempty"`
	Conditions []struct {
		Type    string `json:"type"`
		Status  string `json:"status"`
		Reason  string `json:"reason,omitempty"`
		Message string `json:"message,omitempty"`
	} `json:"conditions,omitempty"`
	Containers []containerStatus `json:"containerStatuses,omitempty"`
}

type containerStatus struct {
	State struct {
		Waiting *struct {
			Reason  string `json:"reason"`
			Message string `json:"message"`
		} `json:"waiting,omitempty"`
		Running    *struct{} `json:"running,omitempty"`
		Terminated *struct {
			Reason   string    `json:"reason"`
			Message  string    `json:"message"`
			ExitCode int       `json:"exitCode"`
			Finished time.Time `json:"finishedAt"`
		} `json:"terminated,omitempty"`
	} `json:"state"`
}

// containerName is that of a pod's one container.
const containerName = "node"

// Every pod of ours has this label.
const (
	managedLabel = "app.kubernetes.io/managed-by"
	managedBy    = "kaniko-build"
	nodeNote     = "kaniko-build/node"
)

// pod is the pod of a node. It asks for nothing that a default pod does not have.
func (r *Runner) pod(ctx context.Context, at executor.Site) *pod {
	no, grace := false, int64(1)
	p := &pod{
		APIVersion: "v1", Kind: "Pod",
		Metadata: metadata{
			GenerateName: "kaniko-build-" + slug(at.Node) + "-",
			Labels:       map[string]string{managedLabel: managedBy},
			Annotations:  map[string]string{nodeNote: at.Node},
		},
		Spec: podSpec{
			RestartPolicy: "Never", GracePeriod: &grace, ServiceAccount: r.ServiceAccount,
			MountToken: &no, EnableServiceLinks: &no, // a RUN is root beside what is mounted
			NodeSelector: r.selector(at), Tolerations: r.Tolerations,
			Containers: []podContainer{{
				Name: containerName, Image: cmp.Or(r.Image, DefaultImage), ImagePullPolicy: "IfNotPresent",
				Command: r.command(), Resources: resourcesOf(at.Resources),
				TerminationMessagePolicy: "FallbackToLogsOnError",
			}},
		},
	}
	for _, s := range r.PullSecrets {
		p.Spec.ImagePullSecrets = append(p.Spec.ImagePullSecrets, named{s})
	}
	if end, ok := ctx.Deadline(); ok { // if we are not there any more to end it
		seconds := int64(math.Ceil(time.Until(end).Seconds())) + int64(keptTime.Seconds())
		p.Spec.ActiveDeadline = &seconds
	}
	return p
}

// command is that of the first process of a pod.
func (r *Runner) command() []string {
	argv := []string{programPlace, Command}
	if r.Rung != "" {
		argv = append(argv, RungFlag, r.Rung)
	}
	return argv
}

// resourcesOf are the requests and limits of a node. The build ends a RUN that needs more
// than the memory of the node, and says which; the pod's limit is a wall behind that.
func resourcesOf(r executor.Resources) podResources {
	var out podResources
	set := func(name, request, limit string) {
		if out.Requests == nil {
			out = podResources{map[string]string{}, map[string]string{}}
		}
		out.Requests[name], out.Limits[name] = request, limit
	}
	if r.MilliCPU > 0 {
		set("cpu", fmt.Sprintf("%dm", r.MilliCPU), fmt.Sprintf("%dm", r.MilliCPU))
	}
	if r.Memory > 0 {
		set("memory", fmt.Sprint(r.Memory), fmt.Sprint(memoryLimit(r.Memory)))
	}
	return out
}

// memoryLimit is the limit of a pod, 0 for none.
func memoryLimit(memory int64) int64 {
	if memory == 0 {
		return 0
	}
	return memory + max(memory/8, 64<<20)
}

// slug makes a node's name a part of a pod's.
func slug(name string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(name) {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			b.WriteRune(c)
		} else if s := b.String(); s != "" && !strings.HasSuffix(s, "-") {
			b.WriteByte('-')
		}
	}
	s := b.String()
	return cmp.Or(strings.Trim(s[:min(len(s), 40)], "-"), "node")
}
