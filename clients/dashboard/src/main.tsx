/** Where the page begins: the token leaves the address first, before anything can look at it. */

import { createRoot } from 'react-dom/client';
import { App } from './app.js';
import './live-worker.js';
import { takeTokenFromAddress } from './session.js';
import { applyTheme, readTheme } from './theme.js';
import './styles/index.css';

takeTokenFromAddress();
applyTheme(readTheme());

const root = document.getElementById('root');
if (root !== null) createRoot(root).render(<App />);
