package credential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// acrClouds are the domains of Azure's registries, with the cloud and the
// audience that their tokens are for.
var acrClouds = []struct {
	domain   string
	cloud    cloud.Configuration
	audience string
}{
	{".azurecr.io", cloud.AzurePublic, "https://management.azure.com/.default"},
	{".azurecr.cn", cloud.AzureChina, "https://management.chinacloudapi.cn/.default"},
	{".azurecr.us", cloud.AzureGovernment, "https://management.usgovcloudapi.net/.default"},
}

// noUser is the name beside a token of Azure's registries.
const noUser = "00000000-0000-0000-0000-000000000000"

// acrLife is how long a token of a registry is used; it lives three hours.
const acrLife = time.Hour

// acr exchanges a token of the identity in the environment (a service principal,
// a workload's or a managed one) for one of the registry.
func (o Options) acr(ctx context.Context, host string) (*login, error) {
	for _, c := range acrClouds {
		if name, ok := strings.CutSuffix(host, c.domain); !ok || name == "" {
			continue
		}
		if o.Getenv("AZURE_CLIENT_ID") == "" && o.Getenv("AZURE_TENANT_ID") == "" && o.Getenv("IDENTITY_ENDPOINT") == "" && o.Getenv("MSI_ENDPOINT") == "" && !o.onAzure(ctx) {
			return nil, nil
		}
		identity, err := o.azureIdentity(c.cloud)
		if err != nil {
			return nil, fmt.Errorf("find an identity of Azure: %w", err)
		}
		token, err := identity.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{c.audience}})
		if err != nil {
			return nil, fmt.Errorf("ask Azure for a token: %w", err)
		}
		return o.exchange(ctx, host, token.Token)
	}
	return nil, nil
}

// azureIdentity is the first that the environment describes.
func (o Options) azureIdentity(c cloud.Configuration) (azcore.TokenCredential, error) {
	opts := azcore.ClientOptions{Cloud: c, Transport: o.client()}
	id := o.Getenv("AZURE_CLIENT_ID")
	switch {
	case o.Getenv("AZURE_CLIENT_SECRET") != "" || o.Getenv("AZURE_CLIENT_CERTIFICATE_PATH") != "":
		return azidentity.NewEnvironmentCredential(&azidentity.EnvironmentCredentialOptions{ClientOptions: opts})
	case o.Getenv("AZURE_FEDERATED_TOKEN_FILE") != "":
		return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{ClientOptions: opts})
	case o.Getenv("AZURE_FEDERATED_TOKEN") != "":
		return azidentity.NewClientAssertionCredential(o.Getenv("AZURE_TENANT_ID"), id, func(context.Context) (string, error) {
			return o.Getenv("AZURE_FEDERATED_TOKEN"), nil
		}, &azidentity.ClientAssertionCredentialOptions{ClientOptions: opts})
	default:
		managed := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: opts}
		if id != "" {
			managed.ID = azidentity.ClientID(id)
		}
		return azidentity.NewManagedIdentityCredential(managed)
	}
}

// onAzure tells whether the metadata service of Azure's machines answers, which
// it does at once.
func (o Options) onAzure(ctx context.Context) bool {
	ctx, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://169.254.169.254/metadata/instance?api-version=2021-02-01", nil)
	if err != nil {
		return false
	}
	req.Header.Set("Metadata", "true")
	resp, err := o.client().Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// exchange gives a token of Azure to the registry, for one of its own.
func (o Options) exchange(ctx context.Context, host, token string) (*login, error) {
	form := url.Values{"grant_type": {"access_token"}, "service": {host}, "access_token": {token}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+host+"/oauth2/exchange", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := o.client().Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s takes no token of this identity: it answers %d %s", host, resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	var answer struct {
		Refresh string `json:"refresh_token"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer); err != nil || answer.Refresh == "" {
		return nil, errors.New("the registry gave no token for that of the identity")
	}
	l := &login{until: time.Now().Add(acrLife)}
	l.Username, l.IdentityToken = noUser, answer.Refresh
	return l, nil
}
