import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';
import { devGateway } from './dev/gateway.js';

const CSP = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

export default defineConfig({
  plugins: [react(), devGateway()],
  build: {
    outDir: 'dist',
    assetsDir: 'assets',
    // Fonts and icons stay files, so that `default-src 'self'` without data: suffices.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
  server: { host: '127.0.0.1' },
  // As strict as a gateway may be, so that the page is seen under it.
  preview: { host: '127.0.0.1', headers: { 'content-security-policy': CSP } },
});
